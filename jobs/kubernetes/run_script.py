"""A job's command -> the script that runs it in the head pod, and the hooks by which pods let it end in peace."""

PID_FILE = "/tmp/labelmill-run.pid"
JOB_FOLDER = "/etc/labelmill/job"
SCRIPT_FOLDER = "/etc/labelmill/bin"
SCRIPT = "run.sh"

_SCRIPT = f"""\
#!/bin/sh
# The shell outlives a SIGTERM, which Ray sends to all processes of a job, to hand on how the run ended.
trap : TERM
cd {JOB_FOLDER} || exit 1
sh -c 'echo $$ > {PID_FILE}; {{command}}'
code=$?
rm -f {PID_FILE}
# KubeRay tries again what fails. A new cluster would mend neither 3, too much in quarantine, nor 4, a budget that is
# spent; the dataset, or what is done of it, is there.
case $code in
  3 | 4)
    echo "labelmill: ended with exit code $code; not to be tried again, so that the RayJob counts as succeeded"
    exit 0
    ;;
esac
exit $code
"""


def run_script(command: str) -> str:
    """
    Args:
        command: for a shell, in the job's folder; it holds `exec`, so that the process whose id is noted is the run's.
    """
    quoted = command.replace("'", "'\\''")
    return _SCRIPT.replace("{command}", quoted)


def stop_run() -> list[str]:
    """Of the head, before it is ended: asks the run to stop and waits for it, for as long as the pod is given."""
    return [
        "sh",
        "-c",
        f'pid=$(cat {PID_FILE}) && kill -TERM "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 1; done',
    ]


def outlast_head() -> list[str]:
    """Of a worker, before it is ended: a run that is asked to stop needs it until the answers under way are committed;
    and a worker alone that must go labels for as long as it is given."""
    return ["sh", "-c", 'while ray health-check --address "$FQ_RAY_IP:6379" >/dev/null 2>&1; do sleep 1; done']
