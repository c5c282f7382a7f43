"""Where upscaled frames go: a video with all that its source carries beside them, a folder of images, a field."""
