# What the claims are judged on.
from replication.claim_registry import OF_KERNEL, experiments_to_judge, load_claims, station_of

CLAIMS = load_claims()
CLAIM_SOURCES = [*source_files("replication.claims"), "replication/claim_registry.py"]


def judged_experiments(*statistics):
    """Experiments of the claims that can be judged, as the preset shows all that they need; of these statistics only,
    where any are named, of those that need no kernel otherwise."""
    parts = [*shown_by_default("figures").values(), *shown_by_default("tables").values()]
    shown = [experiment for part in parts for experiment in part["experiments"]]
    chosen = statistics or {claim["statistic"] for claim in CLAIMS.values()} - OF_KERNEL
    claims = {name: claim for name, claim in CLAIMS.items() if claim["statistic"] in chosen}
    return experiments_to_judge(claims, shown)


def judged_kernels():
    """Experiments whose measured kernel claims can be judged on: none where it is left to a target of its own."""
    return judged_experiments(*OF_KERNEL) if "kernel" in shown_by_default("figures") else []


def experiments_of_theory(station):
    """Experiments whose results of `station` judge the claims of the table claims_dynamics, as far as the preset runs them."""
    claims = {name: CLAIMS[name] for name in PAPER["tables"]["claims_dynamics"]["claims"]}
    shown = ["baseline", *PAPER["figures"]["kernel"]["experiments"], *PAPER["figures"]["interventions"]["experiments"]]
    return experiments_to_judge({name: claim for name, claim in claims.items() if station_of(claim) == station}, shown)


def experiments_of_families(station):
    """Experiments whose results of `station` judge the claims that the arms of every family can judge."""
    claims = {name: claim for name, claim in CLAIMS.items() if station_of(claim) == station}
    return experiments_to_judge(claims, ["baseline", *PAPER["families"]["arms"]])


def carrying(station, experiments, seeds):
    """The digests of claims that a station's results carry, over experiments and runs."""
    return collect(
        f"<results>/{{experiment}}/seed={{seed}}/{station}/claims_registered.json", experiment=experiments, seed=seeds
    )
