"""Quantization's arithmetic on a GPU: NVFP4 activations against ModelOpt's kernel, emulated towers against a CPU.

ModelOpt's dynamic NVFP4 runs on GPUs of compute capability 8.9 and later alone: no CPU test can hold ours against it.

    python benchmarks/nvfp4_gpu.py --kernels .../modelopt/torch/kernels/quantization --bundle BUNDLE --results DIR
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import collect_conditions

from motedge.bundle import Bundle
from motedge.quant.fake_quant import fake_quantized
from motedge.quant.fidelity.figures import figures_of
from motedge.quant.numerics import nvfp4
from motedge.quant.parameters import SiteParameters
from motedge.quant.schemes import SCHEMES
from motedge.quant.sites import module_sites
from motedge.quant.towers import open_tower

# Share of values that may take the other code
MOST_DIFFERING = 2e-4
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def main() -> int:
    """Compares, prints and writes JSON; exit code 1 where a value differs by more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=Path, required=True, help="that folder of an installed ModelOpt")
    parser.add_argument("--bundle", type=Path, required=True, help="a bundle with a sample of gen_step")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    kernel = load_kernel(args.kernels)
    rows = [compare_kernel(kernel, name, shrink) for name in DTYPES for shrink in (1.0, 0.5)]
    towers = compare_towers(Bundle.open(args.bundle))
    result = {
        "schema": "motedge.benchmark/v1",
        "benchmark": "nvfp4_gpu",
        "conditions": {**collect_conditions(), "device": torch.cuda.get_device_name(), "torch": torch.__version__},
        "activations": rows,
        "towers": towers,
    }
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "nvfp4_gpu.json").write_text(json.dumps(result, indent=2) + "\n")
    for row in (*rows, *towers):
        print(json.dumps(row))
    return 0 if all(row["differing"] <= MOST_DIFFERING * row["values"] for row in rows) else 1


def load_kernel(folder: Path) -> Any:
    """ModelOpt's kernel from its files alone: the package around it needs more than a bare machine has."""
    numbers = types.ModuleType("modelopt.torch.quantization.utils.numeric_utils")
    numbers.E4M3_MAX = 448.0  # type: ignore[attr-defined]
    sys.modules[numbers.__name__] = numbers
    for name in ("", ".common", ".gemm"):
        package = types.ModuleType(f"modelopt_kernels{name}")
        package.__path__ = [str(folder / name.strip("."))]
        sys.modules[package.__name__] = package
    return importlib.import_module("modelopt_kernels.gemm.fp4_kernel_hopper").fp4_fake_quant_block


def compare_kernel(kernel: Any, dtype: str, shrink: float) -> dict[str, Any]:
    """Activations of a policy's size with outliers, dead blocks and tiny ones; `shrink`: calibrated over seen range."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3093, 2048, generator=generator) * torch.logspace(-3, 1, 2048)
    x[:, :16] = 0
    x[::7, 100] *= 40
    x = x.to(DTYPES[dtype])
    amax = float(x.abs().max()) * shrink
    theirs = kernel(x.cuda(), torch.tensor(amax).cuda()).cpu()
    ours = nvfp4.fake_quantize_dynamic(x, nvfp4.global_scale(amax, torch.float32))
    # The kernel divides fast: its result may differ in the last place, and then, rarely, take the other code
    step = torch.finfo(x.dtype).eps * 4
    differing = (ours.float() - theirs.float()).abs() > step * theirs.float().abs()
    figures = figures_of(ours.float().numpy(), theirs.float().numpy())
    return {
        "dtype": dtype,
        "calibrated_over_seen": shrink,
        "values": x.numel(),
        "differing": int(differing.sum()),
        "max_abs": figures.max_abs,
        "relative_l2": figures.relative_l2,
    }


def compare_towers(bundle: Bundle) -> list[dict[str, Any]]:
    """One forward of the generator in fp32, each scheme emulated, on the GPU against the CPU."""
    with np.load(bundle.path(bundle.manifest.samples["gen_step"]["file"])) as archive:
        arrays = {name: archive[name] for name in archive.files}
    found = []
    towers = {device: open_tower(bundle, "gen_step", device=device) for device in ("cpu", "cuda")}
    dims = {
        "T": arrays["in.vision"].shape[1],
        "A": arrays["in.action"].shape[0],
        "U": arrays["in.und_kv"].shape[3],
        "N": arrays["in.cos"].shape[0],
    }
    for scheme in (None, *SCHEMES.values()):
        outputs = {}
        for device, tower in towers.items():
            known = {}
            for name, (site, _) in module_sites(tower.module).items() if scheme else ():
                smooth = torch.ones(site.inputs) if scheme and scheme.smoothing else None
                known[name] = SiteParameters(scheme, 8.0 if scheme.activation else None, smooth)
            with fake_quantized(tower.module, known, torch.float32):
                tower.module.to(device)
                context = tower.context(dims)
                for spec in tower.contract.inputs:
                    context.set_input(spec.name, arrays[f"in.{spec.name}"])
                context.run()
                outputs[device] = context.output("vision_velocity").copy()
        figures = figures_of(outputs["cuda"], outputs["cpu"])
        row = {"scheme": scheme.id if scheme else "none", "relative_l2": figures.relative_l2, "cosine": figures.cosine}
        found.append(row)
    return found


if __name__ == "__main__":
    sys.exit(main())
