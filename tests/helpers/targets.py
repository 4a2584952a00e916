"""Compiles Triton kernels for GPUs that are not there.

The interpreter sees neither what a compiler refuses nor how much shared memory a kernel takes. A
process of its own compiles, since this one has imported Triton for the interpreter.
"""

import importlib
import json
import os
import subprocess
import sys
from typing import Any

SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}
"""bytes a block may have, by compute capability"""

NARROW = "ld.global.b16"


def compile_all(module: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compile kernels of a module for every target.

    Args:
        module: dotted path.
        cases: `kernel`, `types` (Triton type by argument; i32 where none is given), `constants`
            (compile-time values by argument, strides of 1 among them), `options` of the launch.
            A constant "tl.x" is that attribute of triton.language.

    Returns:
        The kernel, the target, the bytes of shared memory of each, and its loads of 16 bits.
    """
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    process = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([module, cases]),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout)


def main() -> None:
    module, cases = json.load(sys.stdin)
    kernels = importlib.import_module(module)
    results = []
    for case in cases:
        for target in SHARED_MEMORY:
            kernel = compile_one(getattr(kernels, case["kernel"]), target, case)
            figures = {"shared": kernel.metadata.shared, "narrow": kernel.asm["ptx"].count(NARROW)}
            results.append({"kernel": case["kernel"], "target": target, **figures})
    print(json.dumps(results))


def compile_one(kernel: Any, target: int, case: dict[str, Any]) -> Any:
    import triton
    from triton import language
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {
        name: getattr(language, value[3:]) if str(value).startswith("tl.") else value
        for name, value in case["constants"].items()
    }
    signature = {name: case["types"].get(name, "i32") for name in kernel.arg_names}
    signature |= dict.fromkeys(constants, "constexpr")
    # as at a launch with sizes and addresses that are multiples of 16, where loads are widest
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if name not in constants
    }
    source = ASTSource(kernel, signature, constants, aligned)
    options = case.get("options", {})
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)


if __name__ == "__main__":
    main()
