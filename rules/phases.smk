# A run of an experiment c_* is a chain of phases (paper Algorithm 2). The files of its last phase are those of the run.
from replication.phases import check_settings, is_current, phase_epochs


def schedule(experiment):
    stations = ("supervision", "origin", "candidates", "post_training", "schedule")
    read = {station: load_stage(station, PRESET, BASE, experiment, OVERRIDES) for station in stations}
    shared = load_stage("candidates", PRESET, BASE, overrides=OVERRIDES)
    own = (read["supervision"], read["origin"], read["candidates"])
    check_settings(experiment, *own, shared, read["post_training"]["orthogonal_to"])
    return read["schedule"]


def epochs_of_phases(experiment):
    epochs = load_stage("post_training", PRESET, BASE, experiment, OVERRIDES)["epochs"]
    return phase_epochs(schedule(experiment)["replay_at"], epochs)


def phase_of(wildcards):
    """Number of the phase that a job belongs to: the last one where the path names none."""
    return int(wildcards.get("phase", len(epochs_of_phases(wildcards.experiment))))


def phase_folder(wildcards, experiment, phase):
    run = f"<results>/{experiment}/seed={wildcards.seed}"
    return run if phase == len(epochs_of_phases(experiment)) else f"{run}/phase={phase}"


def phase_epochs_option(wildcards):
    return "--epochs {} {}".format(*epochs_of_phases(wildcards.experiment)[phase_of(wildcards) - 1])


def phase_before(*names):
    """Input function: these files of the phase before; none in the first."""

    def files(wildcards):
        phase = phase_of(wildcards)
        folder = phase_folder(wildcards, wildcards.experiment, phase - 1)
        return [f"{folder}/{name}" for name in names] if phase > 1 else []

    return files


def phase_alike(name):
    """Input function: this file of the same phase of the run that the run is a control of, if it is one."""

    def file(wildcards):
        like = schedule(wildcards.experiment)["like"]
        return f"{phase_folder(wildcards, like, phase_of(wildcards))}/{name}" if like else []

    return file


def first_phase(experiment):
    """What makes the model after the first phase, but for the run: its epochs, its samples and the training."""
    selection, training = (
        load_stage(stage, PRESET, BASE, experiment, OVERRIDES) for stage in ("phases", "post_training")
    )
    alike = ("method", "rule", "images_per_prompt", "candidates_per_prompt")
    samples = [selection[key] for key in alike] + [selection["adds"] == "stages"]
    return epochs_of_phases(experiment)[0], samples, training


def model_before(wildcards):
    """The model that a phase starts from. The second may start from another experiment's, to train one first phase for all."""
    experiment = wildcards.experiment
    if phase_of(wildcards) == 1:
        return base_model(wildcards)
    if phase_of(wildcards) == 2:
        experiment = schedule(experiment)["starts_as"]
        if first_phase(experiment) != first_phase(wildcards.experiment):
            raise SystemExit(
                f"{wildcards.experiment} cannot start as {experiment}: their first phases differ; "
                "leave out schedule.starts_as."
            )
    return f"{phase_folder(wildcards, experiment, phase_of(wildcards) - 1)}/model"


def model_for(role):
    """Input function: the model that does what `role` of the schedule says, the current or the pre-trained one."""

    def model(wildcards):
        current = is_current(schedule(wildcards.experiment), role)
        return model_before(wildcards) if current else base_model(wildcards)

    return model


def phase_candidates_of(wildcards):
    """The images that a phase takes samples from: Algorithm 1's, its own, or none."""
    adds = load_stage("phases", PRESET, BASE, wildcards.experiment, OVERRIDES)["adds"]
    phase = phase_of(wildcards)
    folder = f"<results>/{wildcards.experiment}/seed={wildcards.seed}/phase={phase}/candidates"
    if phase == 1 or adds == "stages":
        folder = f"<results>/candidates/seed={wildcards.seed}"
    return [] if phase > 1 and adds == "repeat" else [f"{folder}/candidates.csv", f"{folder}/codes.npy"]
