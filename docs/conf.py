"""Configuration of the site: `make docs` builds it, strictly, into build/site."""

import logging
import os
import sys
from pathlib import Path

import momos

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks gain nothing from more

logging.getLogger("traitlets").setLevel(logging.WARNING)  # a line for each notebook

project = "momos"
author = "the momos developers"
project_copyright = "the momos developers"
version = release = momos.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "site_pages",  # tools/site_pages.py
]
exclude_patterns = ["**/.ipynb_checkpoints"]
source_suffix = {".md": "myst-nb"}
default_role = "code"
smartquotes = False  # "--step" in a help text is no dash
suppress_warnings = ["myst.header", "myst.xref_ambiguous"]
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

# Tutorials are stored without outputs and run here; an error in one fails the build.
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_execution_in_temp = True
nb_execution_cache_path = str(ROOT / "build" / "notebooks")

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False

html_title = "momos"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses on file://
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#9a3412",
        "color-brand-content": "#b03a14",
    },
    "dark_css_variables": {
        "color-brand-primary": "#fdba74",
        "color-brand-content": "#fba15f",
    },
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
