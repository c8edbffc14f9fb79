"""The embedded world: rendered compositional scenes, a prompt grammar and an exact oracle. Numpy only.

The nine subtasks mirror the paper's Fig. 2c, grouped in its three strata of difficulty.
"""

STRATA = {
    "easy": ("single_object", "two_objects", "color_attribution"),
    "medium": ("shape", "texture", "spatial"),
    "hard": ("counting", "non_spatial", "complex"),
}
SUBTASKS = tuple(subtask for subtasks in STRATA.values() for subtask in subtasks)
STRATUM_OF = {subtask: stratum for stratum, subtasks in STRATA.items() for subtask in subtasks}
