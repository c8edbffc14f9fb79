from snakemake.utils import min_version

min_version("9.20")


report: "rules/captions/workflow.rst"


include: "rules/scheduler.smk"
include: "rules/common.smk"
include: "rules/base.smk"
include: "rules/downloads.smk"
include: "rules/origin.smk"
include: "rules/judges.smk"
include: "rules/baseline.smk"
include: "rules/candidates.smk"
include: "rules/self_improvement.smk"
include: "rules/evaluation_shards.smk"
include: "rules/sensitivity.smk"
include: "rules/poor_supervision.smk"
include: "rules/phases.smk"
include: "rules/curriculum.smk"
include: "rules/dynamics.smk"
include: "rules/judged.smk"
include: "rules/claims.smk"
include: "rules/understanding.smk"
include: "rules/paper.smk"
include: "rules/compared.smk"
include: "rules/families.smk"


rule paper_figures:
    default_target: True
    input:
        collect("<figures>/{figure}.pdf", figure=shown_by_default("figures")),
        collect("<figures>/{table}.tex", table=shown_by_default("tables")),
        gallery=rules.gallery.output,
        compute=rules.compute.output.table,
    localrule: True
