//! From a request for lines of a log to the pods' host and back. Owns the choice of the pod and the words of a refusal.

use std::sync::Arc;

use portico_core::world::{World, pods::PodKey};

use crate::{
    control::command::{CommandError, LogLine, LogPage, LogRequest},
    objects::Resource,
    simulate::{
        host::LogReader,
        protocol::{self, LogError, LogQuery},
    },
};

/// Whom to ask, and what.
pub(super) fn query(
    world: &World,
    reader: Option<&LogReader>,
    request: &LogRequest,
) -> Result<(LogReader, LogQuery), CommandError> {
    let key: PodKey = (
        request.namespace.as_str().into(),
        request.pod.as_str().into(),
    );
    let Some(pod) = world.pods().pods.get(&key) else {
        return Err(CommandError::NotFound {
            resource: Resource::Pods,
            name: request.pod.clone(),
        });
    };
    let reader = reader.cloned().ok_or_else(|| {
        CommandError::Refused("error: pods are not simulated; start portico with --simulate".into())
    })?;
    let query = LogQuery {
        uid: pod.uid,
        container: Some(Arc::from(request.container.as_str())),
        previous: request.previous,
        after: request.after,
        limit: request.limit,
        wait: request.wait,
    };
    Ok((reader, query))
}

/// What came of it, in kubectl's words.
pub(super) fn page(
    page: Result<protocol::LogPage, LogError>,
    request: &LogRequest,
) -> Result<LogPage, CommandError> {
    let (pod, container) = (&request.pod, &request.container);
    let page = page.map_err(|error| match error {
        LogError::NoPod => CommandError::Refused(format!(
            "Error from server (BadRequest): container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating"
        )),
        LogError::NoContainer(_) => CommandError::Refused(format!(
            "error: container {container} is not valid for pod {pod}"
        )),
        LogError::NoPrevious(_) => CommandError::Refused(format!(
            "Error from server (BadRequest): previous terminated container \"{container}\" in pod \"{pod}\" not found"
        )),
        LogError::Busy | LogError::Lost => CommandError::Refused(format!("error: {error}")),
    })?;
    let line = |line: protocol::LogLine| LogLine {
        at_ms: line.at_ms,
        text: line.text,
    };
    Ok(LogPage {
        lines: page.lines.into_iter().map(line).collect(),
        next: page.next,
        // A run that is over gets no more lines.
        ended: request.previous,
    })
}
