"""Station: the claims of configs/claims.yaml, each with estimate, interval, test and verdict on the results at hand.

The rule by which a verdict is reached, and the correction for many claims, are written in configs/claims.yaml. A claim that
no result judges, or that was registered after the results, gets no verdict: it goes to claims_not_judged.csv. What the verdicts
would be if the imperfect judge of the evaluations said which images are right goes to claims_by_judge.csv.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from replication.claim_registry import REGISTERED, asks_for_truth, digest, load_claims, station_of
from replication.claim_statistics import measure, what_is_missing
from replication.files import atomic_file
from replication.resampling import holm

COLUMNS = ["claim", "statement", "estimate", "ci_low", "ci_high", "seeds", "test", "criterion", "verdict"]
COLUMNS += ["paper_value", "source"]
NOT_JUDGED = ["claim", "statement", "reason"]
BY_JUDGE = ["claim", "statement", "verdict", "by_judge", "estimate", "ci_low", "ci_high"]
TESTS = {"sign_flip": "sign-flip test", "permutation": "permutation test"}
FILES = {
    "evaluation": {"images": "images.csv", "pretrained": "pretrained_verdicts.csv", "probes": "probe_verdicts.csv"},
    "kernel": {"examples": "examples.csv", "pairs": "pairs.csv"},
}
IDENTITY = {"evaluation": "metrics.csv", "kernel": "examples.csv"}  # the file whose first row names a run


def read_results(folders):
    """The results at hand (see claim_statistics.py), and a frame experiment, model, seed, station, registered: the digests
    that the results of a run carry, {claim: digest}. A folder is named for its station."""
    data, runs = {name: [] for name in (*FILES["evaluation"], "pools", *FILES["kernel"])}, []
    for folder in folders:
        station = folder.name
        identity = pd.read_csv(folder / IDENTITY[station], nrows=1)[["experiment", "model", "seed"]].iloc[0].to_dict()
        registered = json.loads((folder / REGISTERED).read_text())
        runs.append({**identity, "station": station, "registered": registered})
        files = {name: folder / file for name, file in FILES[station].items()}
        if station == "evaluation":
            files["pools"] = folder.parent / "discard_pool.csv"
        for name, file in files.items():
            if file.exists():
                data[name].append(pd.read_csv(file).assign(**identity))
    runs = pd.DataFrame(runs)
    if runs.duplicated(["experiment", "seed", "station"]).any():
        raise SystemExit("The same run is given twice in --inputs; name each folder of results once.")
    return {name: pd.concat(frames, ignore_index=True) for name, frames in data.items() if frames}, runs


def judging_runs(name, claim, runs):
    """The seeds of the runs that judge a claim: those whose results carry its digest in every experiment that it needs. And why
    there are none, as a sentence; None where there are."""
    station = station_of(claim)
    needed = runs[runs["experiment"].isin(claim["needs"]) & (runs["station"] == station)]
    missing = [experiment for experiment in claim["needs"] if experiment not in set(needed["experiment"])]
    if missing:
        return [], f"not run: needs {', '.join(missing)}" + " (its kernel, by the target dynamics)" * (
            station == "kernel"
        )
    by_seed = needed.groupby("seed")
    if by_seed["experiment"].nunique().min() < len(claim["needs"]):
        return [], "not run: its experiments have different runs"
    carried = by_seed["registered"].agg(lambda results: all(one.get(name) == digest(name, claim) for one in results))
    seeds = carried.index[carried].to_list()
    return seeds, None if seeds else "registered after these results"


def decide(claim, estimate, low, high, corrected):
    """`reproduced`, `not reproduced` or `inconclusive`: the rule of configs/claims.yaml."""
    sign = 1 if claim["direction"] == "greater" else -1
    low, high = sorted((sign * low, sign * high))
    minimum, no_effect = sign * claim["minimum"], sign * claim["no_effect"]
    if high < minimum:
        return "not reproduced"
    if corrected < claim["significance"] and sign * estimate >= minimum and low > no_effect:
        return "reproduced"
    return "inconclusive"


def criterion(claim):
    """What "reproduced" asks of a claim, in words."""
    side, beyond = ("at least", "above") if claim["direction"] == "greater" else ("at most", "below")
    return (
        f"estimate {side} {claim['minimum']:g}, interval {beyond} {claim['no_effect']:g}, "
        f"Holm-corrected p below {claim['significance']:g}"
    )


def measure_all(claims, data, runs, only=()):
    """What is measured of the claims that can be judged, {claim: (estimate, low, high, p_value, number of runs)}, and a frame of
    `NOT_JUDGED`, the rest. only: names of the claims that are asked about, all by default."""
    measured, not_judged = {}, []
    for name, claim in tqdm(claims.items(), desc="claims"):
        if only and name not in only:
            continue
        seeds, reason = judging_runs(name, claim, runs)
        of_runs = {file: frame[frame["seed"].isin(seeds)] for file, frame in data.items()}
        reason = reason or what_is_missing(claim, of_runs)
        if reason is None:
            measured[name] = (*measure(claim, of_runs), len(seeds))
        else:
            not_judged.append((name, claim["statement"], reason))
    withdrawn = [(name, "", "withdrawn after these results") for name in sorted(carried_by(runs) - set(claims))]
    return measured, pd.DataFrame(not_judged + withdrawn, columns=NOT_JUDGED)


def carried_by(runs):
    """Names of all claims that any result carries."""
    return {name for digests in runs["registered"] for name in digests}


def verdicts(claims, measured, runs):
    """Frame of `COLUMNS`: the measured claims with their verdicts. A claim that was not measured takes part in the correction with
    p = 1, whatever the reason."""
    family = len(carried_by(runs) | set(claims))
    p_values = [one[3] for one in measured.values()]
    corrected = holm(p_values + [1.0] * (family - len(p_values)))[: len(p_values)]
    rows = []
    for (name, (estimate, low, high, p_value, seeds)), holm_p in zip(measured.items(), corrected, strict=True):
        claim = claims[name]
        unit = claim["unit"].partition(", because")[0]
        test = f"{TESTS[claim['test']]} over {unit}: p = {p_value:.2g}, {holm_p:.2g} after Holm over {family} claims"
        verdict = decide(claim, estimate, low, high, holm_p)
        paper = np.nan if claim["paper_value"] is None else claim["paper_value"]
        columns = (claim["statement"], estimate, low, high, seeds, test, criterion(claim), verdict, paper)
        rows.append((name, *columns, claim["source"]))
    return pd.DataFrame(rows, columns=COLUMNS)


def by_imperfect_judge(claims, data, runs, measured):
    """Frame of `BY_JUDGE`: the `measured` claims that ask which images are right, with the verdict by the truth, and verdict,
    estimate and interval if the imperfect judge's answers were the truth. None of them where it was not asked about every image.
    What is right of held-out scenes is known by their making, and stays."""
    frames = {name: data[name] for name in ("images", "pretrained") if name in data}
    if not all("judge_verdict" in frame and frame["judge_verdict"].notna().all() for frame in frames.values()):
        return pd.DataFrame(columns=BY_JUDGE)
    as_judged = {name: frame.assign(truth=frame["judge_verdict"]) for name, frame in frames.items()}
    asked = {name: claims[name] for name in measured if asks_for_truth(claims[name])}
    again = {**measured, **measure_all(asked, {**data, **as_judged}, runs)[0]}
    both = verdicts(claims, again, runs).rename(columns={"verdict": "by_judge"})
    both["verdict"] = verdicts(claims, measured, runs)["verdict"]
    return both.loc[both["claim"].isin(asked), BY_JUDGE]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--claims", required=True, type=Path, help="configs/claims.yaml")
    parser.add_argument("--inputs", required=True, nargs="+", type=Path, help=f"the {REGISTERED} of all results")
    parser.add_argument("--only", nargs="+", default=[], metavar="CLAIM", help="names of some claims")
    parser.add_argument("--output", required=True, type=Path, help="claims.csv; the others go beside it")
    arguments = parser.parse_args()
    claims = load_claims(arguments.claims)
    unknown = ", ".join(sorted({*arguments.only} - {*claims}))
    if unknown:
        parser.error(f"argument --only: {arguments.claims} has no claim {unknown}")
    data, runs = read_results([path.parent for path in arguments.inputs])
    measured, not_judged = measure_all(claims, data, runs, arguments.only)
    files = {"claims_not_judged.csv": not_judged}
    files["claims_by_judge.csv"] = by_imperfect_judge(claims, data, runs, measured)
    files[arguments.output.name] = verdicts(claims, measured, runs)
    for name, frame in files.items():
        with atomic_file(arguments.output.with_name(name)) as partial:
            frame.to_csv(partial, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
