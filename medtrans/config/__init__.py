"""What can be chosen: the words of the field, and the recipes in `pipelines/*.toml`."""
