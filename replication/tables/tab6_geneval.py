"""Table 6: Janus-Pro-7B on GenEval, the paper's cells beside ours (paper 4.2)."""

from replication.tables import side_by_side

SUBTASKS = {  # GenEval's tags; the paper's names and its images (paper 1.4)
    "single_object": ("single", 80),
    "two_object": ("two", 99),
    "counting": ("counting", 80),
    "colors": ("colors", 94),
    "position": ("position", 100),
    "color_attr": ("colorattr", 100),
}


def main():
    side_by_side.write(__doc__, "geneval", SUBTASKS)


if __name__ == "__main__":
    main()
