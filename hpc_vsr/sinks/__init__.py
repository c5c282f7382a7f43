"""Where upscaled frames go: a video with all that its source carries beside them, or a field as NetCDF or Zarr."""
