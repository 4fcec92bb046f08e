"""The REST API: thin routes over FaceService, with keys, limits and one shape of errors."""
