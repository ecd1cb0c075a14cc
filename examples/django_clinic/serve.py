"""Serve the Django clinic with the standard library's server: `python django_clinic/serve.py 8000`."""

import sys
from pathlib import Path
from wsgiref.simple_server import make_server

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app import application

make_server("127.0.0.1", int(sys.argv[1]), application).serve_forever()
