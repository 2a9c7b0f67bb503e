"""What `compare.py` is made of.

shapes           the models (pure)
workloads        what is measured, with which load, against which target (pure)
schedule         the order of runs, and the seed and warm-up of each (pure)
processes        a server's processes: start, suspend, resume, end, CPU time
servers          RadixMesh and vLLM: how each is started, when it is ready, how it is driven
openvino_server  OpenVINO GenAI, in a process of its own environment (`openvino_driver`, run there)
floor            the read bandwidth of this machine
results          what was measured, and the figures made of it (pure)
report           results to Markdown and JSON (pure)
"""
