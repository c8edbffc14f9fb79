"""Table 5: Janus-Pro-7B on T2I-CompBench++, the paper's cells beside ours (paper 4.1)."""

from replication.tables import side_by_side

PROMPTS = 300  # of each subtask (paper 1.4)
SUBTASKS = {
    name: (name, PROMPTS) for name in ("texture", "shape", "color", "spatial", "non_spatial", "complex")
}  # their order in the paper


def main():
    side_by_side.write(__doc__, "t2i_compbench", SUBTASKS)


if __name__ == "__main__":
    main()
