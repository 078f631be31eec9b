"""A job by a client that openapi-generator has generated, as the package `client`.

Arguments: the gateway's address, e-mail address, password, data file, configuration file.
"""

import sys
import time
from pathlib import Path

from client import (
    AccountApi,
    ApiClient,
    Application,
    Attributes,
    Configuration,
    FilesApi,
    FilesDown,
    Job,
    JobRequest,
    JobsApi,
    TokenRequestAsJson,
)

address, email, password, *inputs = sys.argv[1:]
data, config = map(Path, inputs)


def started(files: FilesApi, jobs: JobsApi) -> Job:
    for top, path in (("data", data), ("config", config)):
        stored = files.upload_file(top, "/", (path.name, path.read_bytes()))
        assert stored.path == f"{top}/{path.name}", stored
    attributes = Attributes(files_down=FilesDown(config_id=config.name, data_ids=[data.name]))
    application = Application(application="superres", version="v1", entrypoint="render")
    return jobs.start_job(
        JobRequest(job_name="by openapi-generator", application=application, attributes=attributes)
    )


with ApiClient(Configuration(host=address)) as client:
    credentials = TokenRequestAsJson(email=email, password=password)
    client.configuration.access_token = AccountApi(client).issue_token(credentials).id_token
    files, jobs = FilesApi(client), JobsApi(client)
    files.make_directory("data", "new")
    assert len(files.list_root()) == 5
    job = started(files, jobs)
    while job.status not in {"finished", "error"}:
        time.sleep(0.1)
        job = jobs.describe_job(job.id)
    image = files.download_file(f"{job.paths_out.output}/render.png")
    assert image.startswith(b"\x89PNG")
    print(job.status)
