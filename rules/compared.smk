# Which families the target `families` sets side by side, and what it shows of them.
from snakemake.logging import logger

from replication.config import shipped_bases

LISTED = [] if FAMILY else [name for name in PAPER["families"]["others"] if name != PAPER["choices"]["model"]]
OTHERS = [name for name in LISTED if BASE != "shipped" or shipped_bases(name, PRESET, OVERRIDES)]  # that can run


def family_figure_results(wildcards):
    return results_behind(PAPER["families"]["figures"][wildcards.figure], OTHERS)


def family_table_results(wildcards):
    return results_behind(PAPER["families"]["tables"][wildcards.table], OTHERS)


def family_figures_and_tables(wildcards):
    """What the target families makes. Says which families it cannot show."""
    left_out = [name for name in LISTED if name not in OTHERS]
    if left_out:
        logger.warning(f"Left out, as base_models holds none of theirs: {', '.join(left_out)}.")
    figures, tables = (PAPER["families"][kind] for kind in ("figures", "tables"))
    return [f"<figures>/families/{name}.pdf" for name in figures] + [
        f"<figures>/families/{name}.tex" for name in tables
    ]
