"""Noun phrases and spatial relations of the benchmarks' prompts, by closed word classes alone.

T2I-CompBench finds them with spaCy's tagger, whose model has no place here; this substitution reads the plain sentences of
its prompts: determiners open a phrase, function words close it, and a word between a phrase and the next determiner is a verb.
"""

import re

# In the order in which the benchmark looks for them (UniDet_eval/2D_spatial_eval.py).
RELATIONS = (
    "on side of",
    "next to",
    "near",
    "on the left of",
    "on the right of",
    "on the bottom of",
    "on the top of",
    "on top of",
)


def listed(words):
    return frozenset(words.split())


DETERMINERS = listed("a an the this that these those its his her their my your our some two three four five six seven")
AUXILIARIES = listed("is are was were be been being has have had can could will would does do did")
CLOSING = AUXILIARIES | listed(
    "and or but while as when where which who whose with without of in on at by for from to into onto over under above below "
    "behind beside between among inside outside through across around against along beneath underneath off up down out upon "
    "near like than it they he she them there then so both together also very | ,"
)
VERBS = listed(
    "sat sits sit sitting lay lies lying stood stands standing hung hangs hanging rests rest rested resting leans leaned flowed "
    "floats floated glowed shone ran runs running walks walking holding wearing made complemented contrasted contrasts "
    "surrounded covered filled parked placed painted located"
)
COLOURS = listed("red orange yellow green blue purple pink brown black white gray grey tan gold silver beige")


def words_of(prompt):
    """Lower-case words of a prompt; a relation becomes the word |, a comma a word of its own."""
    text = prompt.lower().strip().rstrip(".")
    for relation in RELATIONS:
        text = re.sub(rf"\b{relation}\b", "|", text)
    return re.findall(r"[^\s,.;:]+|[,;:.]", re.sub(r"[;:.]", ",", text))


def is_verb(word):
    """Whether a word at the end of a phrase is a verb or adverb that a tagger would leave out."""
    return word in VERBS or word.endswith("ly") or (len(word) > 5 and word.endswith("ed"))


def noun_phrases(prompt):
    """The noun phrases of a prompt in order: "a green bench and a blue bowl" -> ["a green bench", "a blue bowl"]."""
    words = [*words_of(prompt), ","]
    phrases, determiner, nouns, predicate = [], [], [], False
    for index, word in enumerate(words):
        if word == "and" and nouns and nouns[-1] in COLOURS and words[index + 1] in COLOURS:
            nouns.append(word)  # a black and white cat
        elif word in DETERMINERS or word in CLOSING:
            if word in DETERMINERS and len(nouns) > 1 and not is_verb(nouns[-1]):
                nouns.pop()  # the cap release(s) the fragrance
            while len(nouns) > 1 and is_verb(nouns[-1]):
                nouns.pop()
            only_verb = nouns and not determiner and (predicate or is_verb(nouns[-1]) or nouns[-1].endswith("ing"))
            if nouns and not only_verb:
                phrases.append(" ".join(determiner + nouns))
            determiner, nouns, predicate = [word] if word in DETERMINERS else [], [], word in AUXILIARIES
        else:
            nouns.append(word)
    return phrases


def relation_of(prompt):
    """The spatial relation that a prompt names and its two objects without determiners, or (None, None, None)."""
    text = prompt.lower()
    for relation in RELATIONS:
        before, found, after = text.partition(f" {relation} ")
        first, second = noun_phrases(before), noun_phrases(after)
        if found and first and second:
            return relation, without_determiner(first[-1]), without_determiner(second[0])
    return None, None, None


def without_determiner(phrase):
    """ "a red book" to "red book"."""
    first, _, rest = phrase.partition(" ")
    return rest if first in DETERMINERS and rest else phrase


def parts_of_complex(prompt):
    """Which scores T2I-CompBench's 3-in-1 averages for a complex prompt: a tuple of "attribute", "spatial", "action".

    The benchmark lists its prompts by hand: attribute and spatial, attribute and action, or all three. Here a prompt that
    names no relation has the second, one whose relation follows "is" or the like the first, and the others all three.
    """
    relation, _, _ = relation_of(prompt)
    if relation is None:
        return "attribute", "action"
    before = prompt.lower().partition(f" {relation} ")[0]
    return ("attribute", "spatial") if before.split()[-1] in AUXILIARIES else ("attribute", "spatial", "action")
