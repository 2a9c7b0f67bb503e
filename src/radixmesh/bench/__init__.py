"""A load client for any OpenAI-compatible server: `radixmesh bench`, `python -m radixmesh.bench`.

    command    Ctrl-C, output, exit codes
    flags      the flags
    settings   what one invocation asks for
    session    the order of things: model, warm-up, the measured runs
    report     figures to a table and to JSON
    traffic/
      workload   prompts (of words) and arrival times, made before the clock starts
      client     one request: send, read the stream, a Record with its time stamps
      stream     server-sent events, and what one chunk of an answer says
      load       many requests at once: N at a time, or Poisson arrivals
    figures/
      metrics    Records to figures
      cpu        CPU time of other processes, from /proc

Times inside are seconds on `time.perf_counter`'s clock; figures that are reported name their unit.
"""
