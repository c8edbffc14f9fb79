"""Table 5: Janus-Pro-7B or Show-o on T2I-CompBench++, the paper's cells beside ours (paper 4.1)."""

from replication.tables import side_by_side


def main():
    side_by_side.write(__doc__, "t2i_compbench")


if __name__ == "__main__":
    main()
