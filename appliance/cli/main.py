"""The entry point and the one place where errors become a line, a hint and an exit status.

Exit status: 0 success, 1 the thing asked for did not hold, 2 wrong usage.
"""

from __future__ import annotations

import logging
import sys

import click

from appliance import __version__
from appliance.cli.accounts import accounts
from appliance.cli.answers import answers
from appliance.cli.ask import ask
from appliance.cli.audit import audit
from appliance.cli.bench import bench
from appliance.cli.bundle import bundle
from appliance.cli.db import db
from appliance.cli.doctor import doctor
from appliance.cli.evaluate import evaluate
from appliance.cli.golden import golden
from appliance.cli.kb import kb
from appliance.cli.keys import keys
from appliance.cli.learn import learn
from appliance.cli.models import models
from appliance.cli.output import fail
from appliance.cli.release import release
from appliance.cli.serve import api, engine, up, vllm
from appliance.cli.webhooks import webhooks
from appliance.cli.worker import worker
from appliance.errors import ApplianceError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="appliance")
def cli() -> None:
    """SmartSupport Appliance: an offline support desk with a model of its own."""


for command in (
    up,
    api,
    engine,
    vllm,
    worker,
    ask,
    answers,
    kb,
    learn,
    golden,
    keys,
    webhooks,
    accounts,
    audit,
    models,
    db,
    release,
    doctor,
    evaluate,
    bench,
    bundle,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    try:
        # Without its own handling of errors click returns the status that a command left with.
        status = cli(standalone_mode=False)
        if isinstance(status, int):
            sys.exit(status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code if isinstance(error, click.UsageError) else 1)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has seen enough; closing stderr keeps Python from complaining at
        # exit.
        sys.stderr.close()
        sys.exit(0)
    except ApplianceError as error:
        fail(error.detail, error.hint)
        sys.exit(1)
    except Exception as error:
        # What nobody foresaw: the name of the error here, its traceback in the log.
        logging.getLogger("appliance").exception("unforeseen")
        fail(
            f"unforeseen {type(error).__name__}",
            "This is a defect; the lines above belong in a report.",
        )
        sys.exit(1)
