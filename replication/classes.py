"""Models and judges are classes that the configuration names: one of one's own needs no edit here."""

from hydra.utils import get_class


def find_class(name):
    """The class with this full name, such as replication.models.janus.JanusModel.

    Raises SystemExit with one sentence where there is none, or its module cannot be imported.
    """
    try:
        return get_class(name)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise SystemExit(f"The configuration names the class {name}, which cannot be imported: {reason}") from error
