"""Coverage-guided fuzzing (atheris) of everything that reads bytes from others: `make fuzz`.

Modules:
    __main__: fuzzes one target after another, each in a process of its own
    targets: what is fuzzed, from which seeds, and what must hold
    worker: fuzzes one target until its time is over or it finds something

`found/TARGET/` holds inputs that once broke a target; `tests/unit/test_fuzz_targets.py` runs every
target on its seeds, on these and on mutations of both, so that they stay mended.
"""
