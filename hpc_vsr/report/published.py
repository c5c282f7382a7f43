"""The two tables of the 2021 paper, and how a run differs from its protocol."""

from __future__ import annotations

PAPER = {
    "climate": [
        {"network": "previous", "mse": 4.9283e-05, "ssim": 0.9896, "psnr": 43.0746},
        {"network": "delta", "mse": 1.9801e-05, "ssim": 0.9943, "psnr": 46.0013, "note": "preliminary"},
        {"network": "parallel5", "mse": 2.8866e-05, "ssim": 0.9953, "psnr": 45.6618, "note": "preliminary"},
        {"network": "raw", "mse": 0.03296, "ssim": 0.6517, "psnr": 14.8202},
    ],
    "diamond": [
        {"network": "delta", "mse": 125.1786, "ssim": 0.9155, "psnr": 27.1675},
        {"network": "parallel5", "mse": 127.5626, "ssim": 0.9184, "psnr": 27.0820},
        {"network": "parallel5", "mse": None, "ssim": 0.972, "psnr": 27.6, "note": "300 training frames"},
        {"network": "raw", "mse": 9193.6647, "ssim": 0.0392, "psnr": 8.5000},
    ],
}
SOURCES = {"climate": "the paper's Climate field, which is not public; ours is another simulation",
           "diamond": "the paper's Diamond video, which is not public; ours is another clip of the same kind"}
RAW = ("The published raw rows come from a resize with swapped sides and nearest interpolation, which scrambles the "
       "image; compare with bicubic enlargement instead.")
PROTOCOL_EPOCHS = 300
STRUCTURE = {"n_2d": 5, "n_3d": 5, "depth": "centre", "recursive_streams": [2, 3], "num_recursive_blocks": 0}


def published_rows(report_rows: list[dict], runs: list[dict], table: str) -> list[dict]:
    """Return the rows of a published table, each with our results for the same network.

    Parameters
    ----------
    report_rows : list of dict
        Rows of report.json.
    runs : list of dict
        Runs of report.json.
    table : {"climate", "diamond"}

    Returns
    -------
    list of dict
        table, network, mse, ssim, psnr, note as published, and ``ours``: a list of run, mse, ssim, psnr and
        ``differences`` of the protocol in words.
    """
    measured = {row["method"]: row for row in report_rows if row["profile"] == "paper"}
    result = []
    for published in PAPER[table]:
        if published["network"] == "raw":
            ours = [{"run": "bicubic", **_figures(measured["bicubic"]), "differences": ["bicubic"]}]
        else:
            ours = [{"run": run["name"], **_figures(measured[run["name"]]), "differences": differences(run)}
                    for run in runs if run["model"]["name"] == published["network"]]
        ours.sort(key=lambda item: item["psnr"] if item["psnr"] is not None else float("inf"), reverse=True)
        result.append({"table": table, "note": "", **published, "ours": ours})
    return result


def differences(run: dict) -> list[str]:
    """Return how a run differs from the protocol behind the published tables, besides its data."""
    model, train = run["model"], run["train"]
    if train is None:
        return ["the authors' own weights, trained on their data"]
    found = []
    epochs = run["epochs"]
    if epochs is not None and abs(epochs - PROTOCOL_EPOCHS) > 0.5:
        found.append(f"{epochs:.3g} epochs instead of {PROTOCOL_EPOCHS}")
    if train["patch_size"]:
        found.append(f"patches of {train['patch_size']}x{train['patch_size']} LR pixels instead of frames")
    if train["batch_size"] != 1:
        found.append(f"batches of {train['batch_size']} instead of 1")
    if train["lr"] != 5e-4 or train["final_lr"] != 1 or train["warmup_steps"]:
        shape = "constant" if train["final_lr"] == 1 and not train["warmup_steps"] else "warm-up and cosine"
        found.append(f"learning rate {train['lr']:g}, {shape}, instead of 5e-4, constant")
    if train["loss"] != "mse":
        found.append(f"{train['loss']} loss instead of MSE")
    if train["augment"]:
        found.append("augmentation")
    if train["ema_decay"]:
        found.append("averaged weights")
    if train["precision"] != "fp16":
        found.append(f"{train['precision']} instead of fp16 with scaling")
    if model["init"] != "torch":
        found.append("our initialisation")
    if model["value_range"] != 255 and run["is_8bit"]:
        found.append("values 0..1 instead of 0..255")
    span = [0.0, 255.0 if run["is_8bit"] else 1.0]
    if model["name"] == "parallel5" and model["output_range"] != span:
        found.append(f"output range {model['output_range'] or 'free'}")
    if model["name"] != "parallel5" and model["output_range"]:
        found.append(f"output kept in {model['output_range']}")
    found += [f"{name} {model[name]} instead of {usual}" for name, usual in STRUCTURE.items() if model[name] != usual]
    if model["name"] == "previous" and not train["first_stage_steps"]:
        found.append("both stages trained together")
    if train["num_frames"]:
        found.append(f"{train['num_frames']} training frames")
    if train["clip_norm"]:
        found.append(f"gradients clipped at {train['clip_norm']:g}")
    if model["skip"] != "none":
        found.append(f"{model['skip']} skip")
    if model["input"] != "plain":
        found.append(f"{model['input']} input")
    if model["kernel_axes"] != "published":
        found.append("kernels along the time axis")
    return found


def _figures(row: dict) -> dict:
    return {key: row[key] for key in ("mse", "ssim", "psnr")}
