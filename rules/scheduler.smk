onstart:
    # With a limit of jobs per second, Snakemake looks at all inputs of all ready jobs again every second, once for each job so
    # far: a third of a core in the default run, two fifths in that of `full`. For a cluster the limit stays.
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None
