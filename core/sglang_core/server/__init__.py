"""The HTTP server, assembled from plugins. Nothing here imports Starlette before a server is built."""
