//! The client: its actions and its output are told in ../../README.md.

use std::{collections::HashMap, env, error::Error, iter, time::Instant};

use http::{HeaderName, HeaderValue};
use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt, ErrorData, RoleClient,
    model::{
        CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest,
        ElicitRequestParams, ElicitResult, ElicitationAction, Implementation,
        ProgressNotificationParam, ProtocolVersion, Request,
    },
    service::{
        NotificationContext, PeerRequestOptions, RequestContext, RunningService, ServiceError,
    },
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;

const USAGE: &str = "usage: client URL [--era legacy|auto|modern] ACTION [ARGUMENT...] ...";
/// Who answers when a server asks.
const USER: &str = "Ada";

type Failure = Box<dyn Error + Send + Sync>;
type Service = RunningService<RoleClient, User>;

/// Connects, performs the actions and prints a line for each.
pub async fn run(words: &[String]) -> Result<(), Failure> {
    let (url, era, actions) = parse(words)?;
    let (sender, mut notes) = mpsc::unbounded_channel();
    let newest = vec![ProtocolVersion::V_2026_07_28];
    let lifecycle = match era.as_str() {
        "legacy" => ClientLifecycleMode::Initialize,
        "modern" => ClientLifecycleMode::Discover { preferred_versions: newest },
        _ => ClientLifecycleMode::Auto { preferred_versions: newest, legacy_version: None },
    };
    let config = StreamableHttpClientTransportConfig::with_uri(url).custom_headers(headers()?);
    let transport = StreamableHttpClientTransport::with_client(reqwest::Client::new(), config);
    let connect = vec!["connect".to_owned()];
    let service = match (User { notes: sender }).serve_with_lifecycle(transport, lifecycle).await {
        Ok(service) => service,
        Err(error) => {
            emit(&connect, Err(error.into()));
            return Ok(());
        }
    };
    let server = service.peer_info();
    emit(
        &connect,
        Ok(json!({
            "protocol": server.as_ref().map(|info| info.protocol_version.to_string()),
            "server": server.as_ref().map(|info| info.server_info.as_ref().map(|server| server.name.clone())),
        })),
    );
    for action in actions {
        emit(&action, perform(&service, &mut notes, &action).await);
    }
    service.cancel().await?;
    Ok(())
}

async fn perform(
    service: &Service,
    notes: &mut Notes,
    action: &[String],
) -> Result<Value, Failure> {
    let words: Vec<&str> = action.iter().map(String::as_str).collect();
    Ok(match words.as_slice() {
        ["ping"] => {
            let ping = serde_json::from_value(json!({ "method": "ping" }))?;
            service.send_request(ping).await?;
            json!({})
        }
        ["tools"] => service.list_all_tools().await?.iter().map(|tool| json!(tool.name)).collect(),
        ["call", name, arguments] => {
            let params = CallToolRequestParams::new((*name).to_owned())
                .with_arguments(serde_json::from_str(arguments)?);
            serde_json::to_value(service.call_tool(params).await?)?
        }
        ["progress", name, arguments] => with_progress(service, notes, name, arguments).await?,
        ["cancel", name, arguments] => {
            cancelled_at_its_first_progress(service, notes, name, arguments).await?
        }
        ["prompts"] => {
            service.list_all_prompts().await?.iter().map(|prompt| json!(prompt.name)).collect()
        }
        ["prompt", name, arguments] => {
            let arguments: Value = serde_json::from_str(arguments)?;
            serde_json::to_value(
                service.get_prompt(made(json!({ "name": name, "arguments": arguments }))?).await?,
            )?
        }
        ["resources"] => {
            service.list_all_resources().await?.iter().map(|resource| json!(resource.uri)).collect()
        }
        ["templates"] => {
            let templates = service.list_all_resource_templates().await?;
            templates.iter().map(|template| json!(template.uri_template)).collect()
        }
        ["read", uri] => {
            serde_json::to_value(service.read_resource(made(json!({ "uri": uri }))?).await?)?
        }
        _ => return Err(USAGE.into()),
    })
}

async fn with_progress(
    service: &Service,
    notes: &mut Notes,
    name: &str,
    arguments: &str,
) -> Result<Value, Failure> {
    while notes.try_recv().is_ok() {} // of an earlier call
    let began = Instant::now();
    let mut call = Box::pin(begin(service, name, arguments).await?.await_response());
    let mut seen = Vec::new();
    let mut note = |(progress, at): Note| {
        seen.push(json!({ "progress": progress, "after": seconds(began, at) }))
    };
    let result = loop {
        tokio::select! {
            biased;
            Some(each) = notes.recv() => note(each),
            result = &mut call => break result?,
        }
    };
    let after = seconds(began, Instant::now());
    while let Ok(each) = notes.try_recv() {
        note(each);
    }
    let mut result = serde_json::to_value(result)?;
    result["progress"] = json!(seen);
    result["after"] = json!(after);
    Ok(result)
}

async fn cancelled_at_its_first_progress(
    service: &Service,
    notes: &mut Notes,
    name: &str,
    arguments: &str,
) -> Result<Value, Failure> {
    while notes.try_recv().is_ok() {}
    let mut call = begin(service, name, arguments).await?;
    tokio::select! {
        _ = notes.recv() => {}
        result = &mut call.rx => {
            let mut result = serde_json::to_value(result??)?;
            result["cancelled"] = json!(false);
            return Ok(result);
        }
    }
    call.cancel(Some("no longer wanted".to_owned())).await?;
    Ok(json!({ "cancelled": true }))
}

/// Begins a call; the SDK asks for progress with every request.
async fn begin(
    service: &Service,
    name: &str,
    arguments: &str,
) -> Result<rmcp::service::RequestHandle<RoleClient>, Failure> {
    let params = CallToolRequestParams::new(name.to_owned())
        .with_arguments(serde_json::from_str(arguments)?);
    let request = ClientRequest::CallToolRequest(Request::new(params));
    Ok(service.send_cancellable_request(request, PeerRequestOptions::no_options()).await?)
}

fn seconds(began: Instant, at: Instant) -> f64 {
    at.duration_since(began).as_secs_f64()
}

/// The progress that was told, and when.
type Note = (f64, Instant);
type Notes = mpsc::UnboundedReceiver<Note>;

/// Answers what servers ask, and hands on what they tell.
struct User {
    notes: mpsc::UnboundedSender<Note>,
}

impl ClientHandler for User {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder().enable_elicitation().build();
        ClientConfig::new(capabilities, Implementation::new("toolgate-rmcp", "1.0.0"))
    }

    async fn create_elicitation(
        &self,
        _: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({ "name": USER })))
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        // Nobody listens any more once the last action is done.
        let _ = self.notes.send((params.progress, Instant::now()));
    }
}

fn parse(words: &[String]) -> Result<(String, String, Vec<Vec<String>>), Failure> {
    let (mut url, mut era, mut actions) = (None, "auto".to_owned(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let arguments = match word.as_str() {
            "--era" => {
                era.clone_from(words.next().ok_or(USAGE)?);
                continue;
            }
            _ if url.is_none() => {
                url = Some(word.clone());
                continue;
            }
            "call" | "progress" | "cancel" | "prompt" => 2,
            "read" => 1,
            "ping" | "tools" | "prompts" | "resources" | "templates" => 0,
            other => return Err(format!("{USAGE}\nunknown action: {other}").into()),
        };
        let action: Vec<_> =
            iter::once(word).chain(words.by_ref().take(arguments)).cloned().collect();
        if action.len() != arguments + 1 {
            return Err(format!("{USAGE}\nmissing argument: {word}").into());
        }
        actions.push(action);
    }
    Ok((url.ok_or(USAGE)?, era, actions))
}

fn headers() -> Result<HashMap<HeaderName, HeaderValue>, Failure> {
    let given: HashMap<String, String> =
        serde_json::from_str(&env::var("MCP_HEADERS").unwrap_or("{}".to_owned()))?;
    let token = env::var("MCP_TOKEN").ok().filter(|token| !token.is_empty());
    let authorization = token.map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
    given
        .into_iter()
        .chain(authorization)
        .map(|(name, value)| Ok((name.parse()?, value.parse()?)))
        .collect()
}

fn made<T: DeserializeOwned>(description: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(description)
}

/// Prints what came of an action.
fn emit(action: &[String], outcome: Result<Value, Failure>) {
    let mut line = match outcome {
        Ok(result) => json!({ "ok": true, "result": result }),
        Err(error) => json!({ "ok": false, "error": described(&*error) }),
    };
    line["action"] = json!(action.first());
    if let Some(target) = action.get(1) {
        line["target"] = json!(target);
    }
    println!("{line}");
}

fn described(error: &(dyn Error + 'static)) -> Value {
    let told = iter::successors(Some(error), |each: &&(dyn Error + 'static)| (*each).source())
        .find_map(|each| match each.downcast_ref() {
            Some(ServiceError::McpError(told)) => Some(told),
            _ => each.downcast_ref::<ErrorData>(),
        });
    let message = told.map_or_else(|| error.to_string(), |told| told.message.to_string());
    json!({ "code": told.map(|told| told.code.0), "message": message, "data": told.and_then(|told| told.data.clone()), "http_status": null })
}
