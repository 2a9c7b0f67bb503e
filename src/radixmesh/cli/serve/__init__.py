"""`radixmesh serve`: a whole mesh on one machine.

    command        the subcommand: what happens in which order
    session        one run of it, from its start to its end
    ready          does the front door answer?
    supervision/   the mesh, kept running
      supervisor     all units: the order in which they start and end
      unit           processes that live and die together, started again with `backoff`
      monitor        presence: what the children say of themselves, and telling of those who died
      nats_server    the private bus
      state          the state file: who runs where
    children/      one child
      process        its start, its output, its end
      prefork        those that are forked before it is their turn
    planning/      from flags to processes
      options        flags, checked
      model          which model: the one named, or the bundled one
      plan           which processes with which flags (pure)
    display/       what people see
      terminal       lines, a bar, the banner
      progress       what is shown while the model loads
    host/          this machine
      machine        cores, accelerators, memory, ports
      interpreter    how a fresh one is started for a child, and what it may import
      title          what `ps` shows of a forked child

Importing this package is cheap; the modules are imported when `serve` runs.
"""
