"""A job by a client that openapi-python-client has generated, as the package `client`.

Arguments: the gateway's address, e-mail address, password, data file, configuration file.
"""

import sys
import time
from pathlib import Path

from client import AuthenticatedClient, Client
from client.api.account import issue_token
from client.api.files import download_file, list_root, make_directory, upload_file
from client.api.jobs import describe_job, start_job
from client.models import (
    Application,
    Attributes,
    FilesDown,
    Job,
    JobRequest,
    TokenRequest,
    UploadFileBody,
)
from client.models import UploadFileFType as Top
from client.types import File

address, email, password, *inputs = sys.argv[1:]
data, config = map(Path, inputs)


def started(client: AuthenticatedClient) -> Job:
    for top, path in ((Top.DATA, data), (Top.CONFIG, config)):
        with path.open("rb") as content:
            body = UploadFileBody(file=File(payload=content, file_name=path.name))
            stored = upload_file.sync(top, "/", client=client, body=body)
        assert stored.path == f"{top}/{path.name}", stored
    attributes = Attributes(files_down=FilesDown(config_id=config.name, data_ids=[data.name]))
    application = Application(application="superres", version="v1", entrypoint="render")
    request = JobRequest(
        job_name="by openapi-python-client", application=application, attributes=attributes
    )
    job = start_job.sync(client=client, body=request)
    assert isinstance(job, Job), job
    return job


credentials = TokenRequest(username=email, password=password)
token = issue_token.sync(client=Client(base_url=address), body=credentials).id_token
with AuthenticatedClient(base_url=address, token=token) as client:
    assert make_directory.sync_detailed("data", "new", client=client).status_code == 201
    assert len(list_root.sync(client=client)) == 5
    job = started(client)
    while job.status not in {"finished", "error"}:
        time.sleep(0.1)
        job = describe_job.sync(job.id, client=client)
    image = download_file.sync(f"{job.paths_out.output}/render.png", client=client)
    assert image.payload.read().startswith(b"\x89PNG")
    print(job.status)
