# The other families that a preset compares with its own: every rule again, with a configuration and a folder of its own.
for OTHER in OTHERS:
    PREFIX = f"{OTHER}_"

    module:
        name: OTHER
        snakefile:
            "../Snakefile"
        config:
            {**config, "family": OTHER}

    use rule * from OTHER as PREFIX*
