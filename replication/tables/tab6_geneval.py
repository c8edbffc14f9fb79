"""Table 6: Janus-Pro-7B or Show-o on GenEval, the paper's cells beside ours (paper 4.2)."""

from replication.tables import side_by_side


def main():
    side_by_side.write(__doc__, "geneval")


if __name__ == "__main__":
    main()
