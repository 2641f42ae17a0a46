//! `usher flows preview`: the timeline of a flow's run for one event, and its mails.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use usher_flows::{Flow, FlowFiles, FlowTimeline, PlannedAction, PlannedStep, PreviewEvent};
use usher_service::ConfigError;
use usher_service::options::Environment;

use super::print;
use crate::output;

/// Shows what a flow would do for an event: each step with its time, the steps that are skipped with their `when`, and every
/// mail as it would be sent. Nothing is sent.
#[derive(Debug, clap::Args)]
pub(crate) struct PreviewArguments {
    /// Name of the flow.
    flow: String,
    /// Location of the flow files.
    #[command(flatten)]
    files: FlowFiles,
    /// A file that holds an event, or a type with a built-in sample, such as user.created or stripe/invoice.paid. Default: the first sample that
    /// starts the flow.
    #[arg(long, value_name = "FILE|TYPE")]
    event: Option<String>,
    /// Write each mail into this folder: its HTML to NUMBER-STEP.html, the rest to NUMBER-STEP.txt.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A mail of the timeline.
pub(super) struct PlannedMail<'a> {
    pub(super) step: &'a PlannedStep,
    params: &'a serde_json::Map<String, serde_json::Value>,
}

pub(crate) fn run(arguments: &PreviewArguments, environment: &Environment) -> anyhow::Result<()> {
    let mut flow = flow(arguments)?;
    // A variable that is not set here has a placeholder.
    flow.settings.read(&flow.instances, environment)?;
    let event = match &arguments.event {
        Some(named) => event(&flow, named)?,
        None => first_sample(&flow)?,
    };
    let timeline = flow.timeline(&event);
    if arguments.json {
        output::json(&print::json(&flow, &event, &timeline))?;
    } else {
        print::print(&flow, &event, &timeline)?;
    }
    if let Some(folder) = &arguments.out {
        let written = write(folder, &timeline)?;
        if !arguments.json {
            output::line("")?;
            output::line(&format!("wrote {written} files to {}", folder.display()))?;
        }
    }
    let failed = timeline.steps.iter().find(|step| matches!(step.action, PlannedAction::Failed(_)));
    if let Some(PlannedStep { step, .. }) = failed {
        bail!("the run would be given up at step {step}");
    }
    Ok(())
}

/// Reads the flow of this name. Others in the folder need not be good.
fn flow(arguments: &PreviewArguments) -> Result<Flow, ConfigError> {
    let sources = arguments.files.read()?;
    let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    let known = format!("there is no flow of this name; there are {}", names.join(", "));
    let source = sources.into_iter().find(|source| source.name == arguments.flow);
    let source = source.ok_or_else(|| ConfigError::new(&arguments.flow, known))?;
    Flow::check(source)
        .map_err(|problems| ConfigError(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}

/// Returns the event of a file, or the sample of a type.
fn event(flow: &Flow, named: &str) -> anyhow::Result<PreviewEvent> {
    if let Some(sample) = PreviewEvent::sample(named) {
        return Ok(sample);
    }
    let path = Path::new(named);
    if !path.exists() {
        let samples = PreviewEvent::sample_names();
        let sources: Vec<String> = flow.on.iter().map(|pattern| pattern.source().to_string()).collect();
        let is_of_flow =
            |name: &&String| sources.iter().any(|source| name.split_once('/').map_or("clerk", |it| it.0) == source);
        let samples: Vec<&str> = samples.iter().filter(is_of_flow).map(String::as_str).collect();
        let why = format!("neither a file nor a type with a sample: {}", samples.join(", "));
        return Err(ConfigError::new(named, why).into());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {named}"))?;
    Ok(PreviewEvent::read(flow, &text).map_err(|error| ConfigError::new(named, error))?)
}

/// Returns the first sample for which the flow has a run.
fn first_sample(flow: &Flow) -> Result<PreviewEvent, ConfigError> {
    if let Some(firing) = PreviewEvent::of_schedule(flow) {
        return Ok(firing);
    }
    let samples = PreviewEvent::sample_names().into_iter().filter_map(|name| PreviewEvent::sample(&name));
    let starting = samples.into_iter().find(|sample| flow.timeline(sample).starts_nothing.is_none());
    starting.ok_or_else(|| {
        ConfigError::new("--event", "no built-in sample starts this flow: name a file that holds an event")
    })
}

impl<'a> PlannedMail<'a> {
    /// Returns the mails of a timeline, in order.
    pub(super) fn of(timeline: &'a FlowTimeline) -> impl Iterator<Item = Self> {
        timeline.steps.iter().filter_map(|step| match &step.action {
            PlannedAction::Call { is_mail: true, params, .. } => Some(Self { step, params }),
            PlannedAction::Call { .. }
            | PlannedAction::Wait(_)
            | PlannedAction::Skipped(_)
            | PlannedAction::Failed(_) => None,
        })
    }

    /// Returns a parameter as text: a list separated by commas, anything else as JSON. `None` if it is not given.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let value = self.params.get(name)?;
        let texts = |items: &[serde_json::Value]| {
            let texts: Option<Vec<&str>> = items.iter().map(serde_json::Value::as_str).collect();
            texts.map(|texts| texts.join(", "))
        };
        let text = value.as_str().map(str::to_owned).or_else(|| value.as_array().and_then(|items| texts(items)));
        Some(text.unwrap_or_else(|| value.to_string()))
    }

    /// Returns everything but the HTML: recipient and subject, an empty line, and the text.
    fn letter(&self) -> String {
        let head = |name: &str, title: &str| self.text(name).map(|value| format!("{title}: {value}\n"));
        let head: String = [("to", "To"), ("from", "From"), ("reply_to", "Reply-To"), ("subject", "Subject")]
            .into_iter()
            .filter_map(|(name, title)| head(name, title))
            .collect();
        format!("{head}\n{}\n", self.text("text").unwrap_or_default().trim_end())
    }
}

/// Writes the mails into a folder, and returns the number of files.
fn write(folder: &Path, timeline: &FlowTimeline) -> anyhow::Result<usize> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut written = 0;
    for (index, mail) in PlannedMail::of(timeline).enumerate() {
        let name = |extension: &str| folder.join(format!("{}-{}.{extension}", index + 1, mail.step.step));
        for (path, text) in [(name("txt"), Some(mail.letter())), (name("html"), mail.text("html"))] {
            let Some(text) = text else { continue };
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            written += 1;
        }
    }
    Ok(written)
}
