# Run by scotch: manage.py shell -c. Asks Django for its settings, tells them in
# one line, and runs collectstatic where STATIC_ROOT is below a given directory.
def collect():
    import json
    import os
    import sys

    from django.apps import apps
    from django.conf import settings
    from django.core.management import call_command

    # As written: settings.STATIC_URL has SCRIPT_NAME before it (Django 3.1).
    written = getattr(settings, "_wrapped", settings)
    root = getattr(settings, "STATIC_ROOT", None)
    root = os.path.realpath(os.fspath(root)) if root else ""
    homes = [os.path.realpath(p) for p in os.environ.pop("SCOTCH_COLLECT").split(":")]
    inside = any(root.startswith(home + "/") for home in homes)
    told = {
        "root": root,
        "url": str(getattr(written, "STATIC_URL", None) or ""),
        "inside": inside,
        "whitenoise": any("whitenoise" in m.lower() for m in settings.MIDDLEWARE),
        "collect": inside and apps.is_installed("django.contrib.staticfiles"),
    }
    sys.stdout.write("\nscotch-collectstatic: " + json.dumps(told) + "\n")
    sys.stdout.flush()
    if told["collect"]:
        call_command("collectstatic", interactive=False)


collect()
