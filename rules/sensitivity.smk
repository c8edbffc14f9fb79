rule sensitivity:
    input:
        "<figures>/sensitivity.pdf",
        "<figures>/tab_ablations.tex",
    localrule: True


rule closed_loop:
    input:
        "<figures>/closed_loop.pdf",
    localrule: True
