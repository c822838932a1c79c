//! The server: what it offers is told in ../../README.md. Environment: PORT and REQUEST_LOG.

use std::{
    collections::HashMap,
    env,
    error::Error,
    fs::OpenOptions,
    io::Write,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::get,
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ElicitRequestParams,
        ElicitationAction, GetPromptRequestParams, GetPromptResponse, GetPromptResult,
        Implementation, InputRequiredResult, ListPromptsResult, ListResourceTemplatesResult,
        ListResourcesResult, ListToolsResult, PaginatedRequestParams, ProgressNotificationParam,
        PromptMessage, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse,
        ReadResourceResult, ResourceContents, Role, ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};

const STEPS: u8 = 4;
/// How long `work` works before each of its notifications.
const STEP: Duration = Duration::from_millis(120);
/// The longest that `wait` waits, and `was_cancelled` for it.
const WAIT: Duration = Duration::from_secs(20);
const WAS_CANCELLED: Duration = Duration::from_secs(2);

type Failure = Box<dyn Error + Send + Sync>;

/// Serves until it is ended.
pub async fn run() -> Result<(), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", env::var("PORT")?.parse()?)).await?;
    let log: Arc<str> = env::var("REQUEST_LOG")?.into();
    // hyper sees that a client went away when it writes, so a short time between its comments.
    let config =
        StreamableHttpServerConfig::default().with_sse_keep_alive(Some(Duration::from_millis(200)));
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(|| Ok(Peer), sessions, config);
    let app = Router::new()
        .nest_service("/mcp", service)
        .layer(from_fn_with_state(log, record))
        .route("/ready", get(|| async { "ready" })); // for whoever started it
    axum::serve(listener, app).await?;
    Ok(())
}

/// Writes down each answered request.
async fn record(State(log): State<Arc<str>>, request: Request, next: Next) -> Response {
    let mut line = json!({
        "run": header(&request, "x-peer-run"),
        "method": request.method().as_str(),
        "version": header(&request, "mcp-protocol-version"),
        "session": header(&request, "mcp-session-id").is_some(),
    });
    let response = next.run(request).await;
    line["status"] = json!(response.status().as_u16());
    let written = OpenOptions::new().append(true).create(true).open(&*log);
    if let Err(error) = written.and_then(|mut file| writeln!(file, "{line}")) {
        eprintln!("server: cannot write the request log: {error}");
    }
    response
}

fn header(request: &Request, name: &str) -> Option<String> {
    let value = request.headers().get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

struct Peer;

impl ServerHandler for Peer {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_resources()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("peer-rmcp", "1.0.0"))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tool = |name: &str, properties: Value| {
            let required: Vec<_> =
                properties.as_object().into_iter().flat_map(|all| all.keys()).cloned().collect();
            let schema =
                json!({ "type": "object", "properties": properties, "required": required });
            json!({ "name": name, "description": name, "inputSchema": schema })
        };
        let (text, whole) = (json!({ "type": "string" }), json!({ "type": "integer" }));
        let tools = json!([
            tool("echo", json!({ "text": text })),
            tool("add", json!({ "a": whole, "b": whole })),
            tool("secret", json!({})),
            tool("work", json!({})),
            tool("ask", json!({})),
            tool("wait", json!({ "key": text })),
            tool("was_cancelled", json!({ "key": text })),
        ]);
        Ok(ListToolsResult::with_all_items(made(tools)?))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(request.arguments.clone().unwrap_or_default());
        let text = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
        match &*request.name {
            "echo" => says(text("text")),
            "add" => says(
                (arguments["a"].as_i64().unwrap_or(0) + arguments["b"].as_i64().unwrap_or(0))
                    .to_string(),
            ),
            "secret" => says("a secret"),
            "work" => {
                for step in 1..=STEPS {
                    sleep(STEP).await;
                    progress(&context, step).await?;
                }
                says("worked")
            }
            "ask" => ask(request, context).await,
            "wait" => {
                progress(&context, 1).await?;
                tokio::select! {
                    () = context.ct.cancelled() => { cancelled(&text("key")).send_replace(true); }
                    () = sleep(WAIT) => {}
                }
                says("waited")
            }
            "was_cancelled" => {
                let mut seen = cancelled(&text("key")).subscribe();
                let found = timeout(WAS_CANCELLED, seen.wait_for(|was| *was)).await;
                says(if found.is_ok() { "cancelled" } else { "not cancelled" })
            }
            other => Err(ErrorData::invalid_params(format!("Unknown tool: {other}"), None)),
        }
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let prompts = json!([{ "name": "greeting", "arguments": [{ "name": "name", "required": true }] }, { "name": "secret" }]);
        Ok(ListPromptsResult::with_all_items(made(prompts)?))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let arguments =
            Value::Object(request.arguments.clone().unwrap_or_default().into_iter().collect());
        let text = match &*request.name {
            "greeting" => format!("Greet {}.", arguments["name"].as_str().unwrap_or_default()),
            "secret" => "a secret".to_owned(),
            other => {
                return Err(ErrorData::invalid_params(format!("Unknown prompt: {other}"), None));
            }
        };
        Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resources = json!([{ "uri": "peer://about", "name": "about" }, { "uri": "peer://secret", "name": "secret" }]);
        Ok(ListResourcesResult::with_all_items(made(resources)?))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let templates = json!([
            { "uriTemplate": "peer://items/{id}", "name": "item" },
            { "uriTemplate": "peer://secrets/{id}", "name": "secrets" },
        ]);
        Ok(ListResourceTemplatesResult::with_all_items(made(templates)?))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let text = match request.uri.split_once("://").map_or("", |(_, path)| path) {
            "about" => "A peer.".to_owned(),
            "secret" => "a secret".to_owned(),
            path => match path.split_once('/') {
                Some(("items", id)) => format!("Item {id}."),
                Some(("secrets", _)) => "a secret".to_owned(),
                _ => {
                    return Err(ErrorData::resource_not_found(format!("no {}", request.uri), None));
                }
            },
        };
        Ok(ReadResourceResult::new(vec![ResourceContents::text(text, request.uri)]).into())
    }
}

/// The SDK has one way of asking for each era.
async fn ask(
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } }, "required": ["name"] });
    let question =
        json!({ "mode": "form", "message": "What is your name?", "requestedSchema": schema });
    if context.protocol_version().is_some_and(|version| version == ProtocolVersion::V_2026_07_28) {
        let Some(answer) = request.input_responses.as_ref().and_then(|all| all.get("who")) else {
            let requests = json!({ "who": { "method": "elicitation/create", "params": question } });
            return Ok(InputRequiredResult::new(Some(made(requests)?), None).into());
        };
        let answer = serde_json::to_value(answer).unwrap_or_default();
        return says(format!("hello {}", answer["content"]["name"].as_str().unwrap_or_default()));
    }
    let answer = context.peer.create_elicitation(made::<ElicitRequestParams>(question)?).await;
    let answer = answer.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
    match answer.action {
        ElicitationAction::Accept => {
            let content = answer.content.unwrap_or_default();
            says(format!("hello {}", content["name"].as_str().unwrap_or_default()))
        }
        _ => says("not accepted"),
    }
}

async fn progress(context: &RequestContext<RoleServer>, step: u8) -> Result<(), ErrorData> {
    let Some(token) = context.meta.get_progress_token() else { return Ok(()) };
    let params =
        ProgressNotificationParam::new(token, f64::from(step)).with_total(f64::from(STEPS));
    let sent = context.peer.notify_progress(params).await;
    sent.map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

/// Whether the call with this key was cancelled.
fn cancelled(key: &str) -> watch::Sender<bool> {
    static CANCELLED: LazyLock<Mutex<HashMap<String, watch::Sender<bool>>>> =
        LazyLock::new(Mutex::default);
    let mut all = CANCELLED.lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(key.to_owned()).or_default().clone()
}

fn says(text: impl Into<String>) -> Result<CallToolResponse, ErrorData> {
    Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
}

/// What the JSON describes, as a type of the SDK's.
fn made<T: DeserializeOwned>(description: Value) -> Result<T, ErrorData> {
    serde_json::from_value(description)
        .map_err(|error| ErrorData::internal_error(error.to_string(), None))
}
