"""How every figure looks, and how it is written: vector, raster and the numbers drawn."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.lines import Line2D

from replication.files import atomic_file

WIDTH = 7.0  # inches: full text width, so that font sizes are true in print

# Okabe and Ito's colour-blind palette; a method has the same colour in the whole paper.
COLORS = {
    "pretrained": "#4D4D4D",
    "sft": "#0072B2",
    "sft_accept_all": "#56B4E9",
    "dpo": "#D55E00",
}
METHODS = {"pretrained": "Pre-trained", "sft": "SFT", "sft_accept_all": "SFT, accept all", "dpo": "DPO"}
CURRICULUM = {
    "c_sft": "C-SFT",
    "c_sft_early": "C-SFT, early replay",
    "c_sft_several": "C-SFT, three replays",
    "c_sft_every": "C-SFT, every epoch",
    "c_sft_generation_only": "C-SFT, only generation",
    "c_sft_understanding_only": "C-SFT, only understanding",
    "c_sft_neither": "C-SFT, neither branch",
    "c_sft_stages": "SFT in stages",
    "c_sft_random": "SFT + random samples",
    "c_sft_steps": "SFT + extra steps",
    "c_sft_n_2": "C-SFT, N = 2",
    "c_sft_n_2_random": "SFT, N = 2, + random samples",
    "c_sft_n_2_steps": "SFT, N = 2, + extra steps",
    "c_dpo": "C-DPO",
    "c_dpo_random": "DPO + random pairs",
    "c_dpo_steps": "DPO + extra steps",
}
NAMES = {  # of the paper's scale, where `label` would not do
    "janus_pro_7b-0": "Janus-Pro-7B",
    "janus_pro_1b-0": "Janus-Pro-1B",
    "overall_t2i_compbench": "T2I-CompBench",
    "overall_geneval": "GenEval",
    "color_attr": "color attribution",
}
PAPER_COLOR = "#8C8C8C"
TRUE_COLOR, FALSE_COLOR = "#009E73", "#CC79A7"
PAPER_MODELS = {
    "emu3": "EMU3",
    "show_o": "Show-o",
    "vila_u": "VILA-U",
    "janus_pro": "Janus-Pro",
    "bagel": "BAGEL",
    "blip3_o": "BLIP3-o",
}

sns.set_theme(
    context="paper",
    style="ticks",
    rc={
        "font.family": "DejaVu Sans",  # shipped with matplotlib: the same bytes on every machine
        "font.size": 7.5,
        "axes.labelsize": 7.5,
        "axes.titlesize": 7.5,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": "#E6E6E6",
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.0,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "savefig.bbox": "tight",
        "savefig.pad_inches": 0.03,
        "savefig.dpi": 250,
    },
)


def label(name):
    """Readable name of a subtask, stratum or model, such as "two objects"."""
    name = NAMES.get(name, name)
    return name.replace("embedded_janus-", "base ").replace("non_spatial", "non-spatial").replace("_", " ")


def two_lines(name):
    """`label` broken for a narrow tick."""
    return label(name).replace(" ", "\n", 1).replace("non-", "non-\n")


def published_edges(verdicts):
    """Edge colours of the paper's cells beside ours: black where ours differ beyond binomial noise."""
    return ["black" if verdict == "beyond noise" else PAPER_COLOR for verdict in verdicts]


def published_handles(marker):
    """Entries of a legend for marks with `published_edges`."""
    style = {"linestyle": "", "marker": marker, "markersize": 3.5, "markerfacecolor": "white"}
    notes = {"paper": PAPER_COLOR, "paper, ours differs beyond noise": "black"}
    return [Line2D([], [], color=color, label=note, **style) for note, color in notes.items()]


def panel(axes, letter, x, y=1.03):
    """Letter of a panel at its upper left, in axes coordinates."""
    axes.text(x, y, f"({letter})", transform=axes.transAxes, ha="left", va="bottom", fontweight="bold")


def save(figure, data, prefix):
    """Write `prefix`.pdf, .png and .csv (`data`: exactly what is drawn); the same figure gives the same bytes."""
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", None)):
        with atomic_file(prefix.with_name(prefix.name + suffix)) as partial:
            figure.savefig(partial, metadata=metadata)
    plt.close(figure)
    with atomic_file(prefix.with_name(prefix.name + ".csv")) as partial:
        data.to_csv(partial, index=False, float_format="%.6g")
