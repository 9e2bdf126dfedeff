"""python compose.py FILE: whether a compose file is one. Prints what is wrong; nothing if all is well."""
import sys
from compose_spec import PyOptions

options = PyOptions()
options.apply_merge = True
try:
    compose = options.from_yaml(open(sys.argv[1]).read())
    compose.validate()
except ValueError as error:
    sys.exit(f"{sys.argv[1]}: {error}")
names = compose.service_names()
if not {"a", "b", "c", "prometheus", "grafana"} <= set(names):
    sys.exit(f"{sys.argv[1]}: services are missing: {names}")
