"""`radixmesh serve`: a whole mesh on one machine.

    command      the subcommand: what happens in which order
    options      flags, checked
    machine      cores, accelerators, memory, ports
    model        which model: the one named, or the bundled one
    plan         which processes with which flags (pure)
    nats_server  the private bus
    interpreter  how a fresh one is started for a child, and what it may import
    reserve      children that are forked before it is their turn
    process      one child: its start, its output, its end
    title        what `ps` shows of a forked child
    unit         processes that live and die together, started again with `backoff`
    supervisor   all units: the order in which they start and end
    mesh         presence: what the children say of themselves, and telling of those who died
    ready        does the front door answer?
    progress     what the terminal shows while the model loads
    terminal     lines for people, the banner
    state        the state file: who runs where

Importing this package is cheap; the modules are imported when `serve` runs.
"""
