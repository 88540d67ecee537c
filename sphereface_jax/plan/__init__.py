"""Will a run fit: what the compilers of GPUs and TPUs, which run on a CPU, say of its very step."""
