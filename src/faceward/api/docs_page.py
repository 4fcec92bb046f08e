"""The page that shows the OpenAPI document: one version of Swagger UI, whose files the browser checks before it runs them."""

from __future__ import annotations

import base64
import hashlib

from fastapi.responses import HTMLResponse

_FILES = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0/"
_SCRIPT = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", deepLinking: true});'
_PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>faceward</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{_FILES}swagger-ui.css" crossorigin="anonymous"
 integrity="sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I">
</head>
<body>
<div id="ui">This page takes its program from cdn.jsdelivr.net, which this browser does not reach.
The document itself is <a href="/openapi.json">/openapi.json</a>.</div>
<script src="{_FILES}swagger-ui-bundle.js" crossorigin="anonymous"
 integrity="sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"></script>
<script>{_SCRIPT}</script>
</body>
</html>
"""
_OWN = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; script-src {_FILES} 'sha256-{_OWN}'; style-src {_FILES} 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)


async def docs_page() -> HTMLResponse:
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})
