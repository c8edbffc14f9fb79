"""The claims of configs/claims.yaml, checked, and the digests by which results remember what was registered.

No torch and no scipy: the workflow reads this while planning, and every evaluation when it ends.
"""

import hashlib
import json
from pathlib import Path

from omegaconf import OmegaConf
from yaml import YAMLError

CLAIMS = Path(__file__).parents[1] / "configs" / "claims.yaml"
REGISTERED = "claims_registered.json"  # beside every evaluation's and every kernel's results: {claim: digest}
TEXTS = ("statement", "source", "unit", "reason", "statistic", "test", "direction")
NUMBERS = ("no_effect", "minimum")
FIELDS = {*TEXTS, *NUMBERS, "needs", "of", "paper_value"}

# Arguments and test of each function of claim_statistics.py.
STATISTICS = {
    "nonunified_by_stratum": ({"experiment"}, "sign_flip"),
    "weak_generation_by_stratum": ({"experiment"}, "sign_flip"),
    "change": ({"metrics", "before", "after"}, "sign_flip"),
    "win_rate": ({"experiment"}, "sign_flip"),
    "false_positive_lead": ({"experiment"}, "sign_flip"),
    "hidden_harm": ({"before", "arms"}, "sign_flip"),
    "unlocked_lead": ({"experiment", "alone"}, "sign_flip"),
    "gap_correlation": ({"before", "after", "gap_from"}, "permutation"),
    "fewer_changed_verdicts": ({"before", "after"}, "sign_flip"),
    "own_cosines": ({"experiment", "quantities"}, "sign_flip"),
    "proxy_ranks": ({"experiment"}, "sign_flip"),
    "same_signs": ({"experiment", "quantities"}, "sign_flip"),
    "corrected_lead": ({"experiment"}, "permutation"),
}
OF_KERNEL = {"own_cosines", "proxy_ranks", "same_signs", "corrected_lead"}  # these read the measured kernel
OF_TRUTH = {
    "weak_generation_by_stratum",
    "win_rate",
    "false_positive_lead",
    "hidden_harm",
    "gap_correlation",
}  # of images
CHOICES = {
    "metrics": {"generation", "nonunified", "balanced_accuracy"},
    "gap_from": {"the same image", "the other images"},
    "quantities": {"caption", "verdict"},
}
EXPERIMENT_ARGUMENTS = ("experiment", "before", "after", "arms", "alone")


def load_claims(path=CLAIMS):
    """Claims by id, each a dict of its fields and the common significance level. Raises SystemExit with one sentence."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except YAMLError as error:
        raise SystemExit(f"{path.name} is not YAML: {' '.join(str(error).split())}.") from error
    sections = {"significance", "claims"}
    if not isinstance(content, dict) or set(content) != sections or not isinstance(content["claims"], dict):
        raise SystemExit(f"{path.name} must hold exactly `significance` and `claims`.")
    if not _is_number(content["significance"]) or not 0 < content["significance"] < 1:
        raise SystemExit(f"{path.name}: significance is {content['significance']!r}; write a number such as 0.05.")
    for name, claim in content["claims"].items():
        problem = _problem(claim)
        if problem:
            raise SystemExit(f"{path.name}: the claim {name!r} {problem}.")
    return {name: {**claim, "significance": content["significance"]} for name, claim in content["claims"].items()}


def digest(name, claim):
    """sha256 of a claim's canonical JSON, its id and the significance level included."""
    return hashlib.sha256(json.dumps({"claim": name, **claim}, sort_keys=True).encode()).hexdigest()


def write_registered(folder, path=CLAIMS):
    """Write to `folder` which claims were registered now: the digest of each."""
    _write(folder, {name: digest(name, claim) for name, claim in load_claims(path).items()})


def merge_registered(shards, folder):
    """Write to `folder` which claims were registered when each of the folders `shards` was written, and alike in all."""
    first, *others = (json.loads((shard / REGISTERED).read_text()) for shard in shards)
    digests = {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}
    _write(folder, digests)


def _write(folder, digests):
    (folder / REGISTERED).write_text(json.dumps(digests, indent=2, sort_keys=True) + "\n")


def station_of(claim):
    """The station whose results judge a claim, which is also the name of their folder: `evaluation` or `kernel`."""
    return "kernel" if claim["statistic"] in OF_KERNEL else "evaluation"


def asks_for_truth(claim):
    """Whether a claim asks which images are right, so that another judge may give another verdict."""
    return claim["statistic"] in OF_TRUTH or "generation" in claim["of"].get("metrics", [])


def experiments_to_judge(claims, shown):
    """Experiments behind the claims that can be judged where the experiments `shown` are run, sorted."""
    return sorted({name for claim in claims.values() if set(claim["needs"]) <= set(shown) for name in claim["needs"]})


def _problem(claim):
    """What is wrong with a claim, as the end of a sentence; None when nothing is."""
    fields = set(claim) if isinstance(claim, dict) else set()
    if fields != FIELDS:
        missing, unknown = (", ".join(sorted(names)) or "none" for names in (FIELDS - fields, fields - FIELDS))
        return f"has missing fields ({missing}) or unknown ones ({unknown})"
    for field in TEXTS:
        if not isinstance(claim[field], str) or not claim[field].strip():
            return f"needs a text as its {field}"
    for field in (*NUMBERS, *(["paper_value"] if claim["paper_value"] is not None else [])):
        if not _is_number(claim[field]):
            return f"has {claim[field]!r} as its {field}, which is not a number"
    if claim["statistic"] not in STATISTICS:
        return f"has the unknown statistic {claim['statistic']!r}; choose one of: {', '.join(sorted(STATISTICS))}"
    arguments, test = STATISTICS[claim["statistic"]]
    if not isinstance(claim["of"], dict) or set(claim["of"]) != arguments:
        return f"must give its statistic {claim['statistic']!r} exactly: {', '.join(sorted(arguments))}"
    for argument in arguments & set(CHOICES):
        if not set(_as_list(claim["of"][argument])) <= CHOICES[argument]:
            return f"has an unknown value of {argument}; choose from: {', '.join(sorted(CHOICES[argument]))}"
    if claim["test"] != test:
        return f"has the test {claim['test']!r}, but {claim['statistic']!r} is tested by {test!r}"
    if claim["direction"] not in ("greater", "less"):
        return f"has the direction {claim['direction']!r}; choose greater or less"
    sign = 1 if claim["direction"] == "greater" else -1
    if sign * claim["minimum"] < sign * claim["no_effect"]:
        return "has a minimum on the wrong side of no_effect for its direction"
    if test == "permutation" and claim["no_effect"] != 0:
        return "tests a correlation, so its no_effect must be 0"
    named = [name for key in EXPERIMENT_ARGUMENTS for name in _as_list(claim["of"].get(key, []))]
    if not isinstance(claim["needs"], list) or set(claim["needs"]) != set(named):
        return f"must need exactly the experiments of its statistic: {', '.join(sorted(set(named)))}"
    return None


def _as_list(value):
    return value if isinstance(value, list) else [value]


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
