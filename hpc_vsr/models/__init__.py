"""The networks of the paper and their parts: plain `torch.nn.Module`s, built by `hpc_vsr.models.build`."""
