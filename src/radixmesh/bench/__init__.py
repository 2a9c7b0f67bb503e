"""A load client for any OpenAI-compatible server: `radixmesh bench`, `python -m radixmesh.bench`.

    command    Ctrl-C, output, exit codes
    flags      the flags
    settings   what one invocation asks for
    workload   prompts (of words) and arrival times, made before the clock starts
    client     one request: send, read the stream, a Record with its time stamps
    stream     server-sent events, and what one chunk of an answer says
    load       many requests at once: N at a time, or Poisson arrivals
    session    the order of things: model, warm-up, the measured runs
    metrics    Records to figures
    report     figures to a table and to JSON
    cpu        CPU time of other processes, from /proc

Times inside are seconds on `time.perf_counter`'s clock; figures that are reported name their unit.
"""
