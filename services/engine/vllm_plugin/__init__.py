"""What we add to vLLM inside its own processes: adapters from the store, LoRA kernels for CPUs, a closed door, and a voice.

It needs only what vLLM brings, and this repository, because the interpreter may be the one of vLLM's own image. vLLM finds it
by an entry point: `entry/` is a distribution that consists of nothing else, and whoever starts vLLM puts that folder and the
repository on PYTHONPATH.
"""
