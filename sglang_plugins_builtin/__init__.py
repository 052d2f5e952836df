"""The plugins that come with the host, one folder for each feature."""
