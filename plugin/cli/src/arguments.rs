//! The command line: its commands and options, and what `--help` says of them.
//!
//! `docs/command-line.md` is made from this. Not here: what commands do.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::diff::FailOn;
use crate::question::{Kind, ServerAction};

/// Operates Toolgate, the MCP gateway for Envoy and Kong.
#[derive(Parser)]
#[command(name = "toolgate", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check configurations and policies as the plugin would when it is configured.
    ///
    /// A file is a plugin configuration (JSON or YAML), an Envoy configuration with Toolgate in it
    /// (a Wasm filter whose `name` or `root_id` is "toolgate"), or a declarative configuration of
    /// Kong with Toolgate in it (a filter or plugin named "toolgate"). A folder is a policy set:
    /// `*.cedar`, at most one `*.cedarschema` and any `*.entities.json`, whose `MCP::Server`s are its
    /// servers.
    ///
    /// The exit code is 0 when everything is valid, 1 when there are problems, 2 when a file could
    /// not be used.
    Check(Check),
    /// Ask policies test cases and compare the answers.
    ///
    /// Says of every policy set which of its policies no case exercises: a policy is exercised by a
    /// case whose answer it determines.
    ///
    /// The exit code is 0 when all cases passed, 1 when one failed (with --require-coverage also when
    /// a policy is not exercised), 2 when policies or a case could not be used.
    Test(Test),
    /// Explain a decision: which policies determined it, and what would change it.
    ///
    /// Says who may do what as the plugin would, with every policy about this action and resource, its
    /// place and text, and what it says by itself. The exit code is 0 whatever the decision is, and 2
    /// when something could not be used.
    Explain(Box<Explain>),
    /// Put recorded calls or cases to two policy sets and list every decision that changes.
    ///
    /// Audit records are JSON lines as the gateway writes them. They hold a call's arguments only with
    /// `audit.arguments: full`; without them, for a tool whose arguments are typed, only whether it is
    /// listed is compared, and the report says so. Records do not hold what a caller's token says:
    /// --callers names the groups, roles, claims and scopes of every principal; where records hold groups,
    /// roles and scopes (`audit.caller: memberships`), only those whose claims policies read have to be named.
    ///
    /// The exit code is 0 when nothing changes, 1 when a decision changes (see --fail-on), 2 when
    /// something could not be used.
    Diff(Diff),
    /// Make the Cedar schema of servers' tools from their tools/list.
    ///
    /// Writes what `policy.schema` takes: an action for every tool, with the types of its arguments as
    /// the tool's JSON Schema has them. What has no Cedar type is said in a comment and in a warning on
    /// the other stream. The servers' word is not proof: review the schema before it is put in force.
    ///
    /// The exit code is 0 when a schema was made, 2 when something could not be used.
    Schema(Schema),
    /// Sign the approval that a refused call asks for.
    ///
    /// A call that a policy with `@approval` permits is refused until an approval comes with it. This
    /// writes one, to be sent in the header field Toolgate-Approval or in `_meta` of the call. The
    /// arguments have to be given, and are compared with those of the call: what nobody has seen nobody
    /// has approved. The caller of a call cannot approve it.
    ///
    /// The exit code is 0 when an approval was made, 2 when something could not be used.
    Approve(Approve),
    /// Write the `policy` part of a configuration from a folder of policies.
    ///
    /// It is JSON, and so YAML too. The exit code is 0, or 2 when the policies could not be used.
    Bundle {
        /// A folder of policies, or a configuration whose policies are wanted.
        policies: PathBuf,
        /// Write `policy_checked` too, by which the plugin knows that they were validated and does not do it
        /// again. It holds for plugins that validate by the same rules as this command.
        #[arg(long)]
        checked: bool,
    },
    /// Write the completions of a shell to the output.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write manual pages.
    ///
    /// Without --directory, the page of `toolgate` goes to the output; with it, one page for it and for
    /// each command goes there.
    Man {
        /// A folder for the pages, which is made where there is none.
        #[arg(long, value_name = "FOLDER")]
        directory: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct Check {
    /// Files or folders to check.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Take the environment variables that the configuration names from this process, and call it a
    /// problem when one is missing. Otherwise they are only listed, and one that the host does not
    /// hand on is a warning.
    #[arg(long)]
    pub(crate) environment: bool,
    /// Write one JSON document instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Test {
    /// Configurations or folders of policies.
    #[arg(required = true)]
    pub(crate) policies: Vec<PathBuf>,
    /// A file with cases, or a folder with such files; may be given several times. Without it the
    /// cases of a folder are in its `cases/` or `cases.yaml`.
    #[arg(long, value_name = "PATH")]
    pub(crate) cases: Vec<PathBuf>,
    /// Fail when there is a policy that no case exercises.
    #[arg(long)]
    pub(crate) require_coverage: bool,
    /// Write one JSON document instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Explain {
    /// A configuration or a folder of policies.
    pub(crate) policies: PathBuf,
    /// The server.
    #[arg(long)]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Arguments of the tool: a JSON object, or @FILE with one.
    #[arg(long, value_name = "JSON", requires = "tool", help_heading = "What is asked for")]
    pub(crate) arguments: Option<String>,
    /// The caller's id, the `sub` of its token.
    #[arg(long, required_unless_present = "anonymous", help_heading = "Who asks")]
    pub(crate) subject: Option<String>,
    /// For whom the caller acts: `client` for itself.
    #[arg(long = "as", default_value = "user", help_heading = "Who asks")]
    pub(crate) kind: Kind,
    /// A caller without a token.
    #[arg(long, conflicts_with_all = ["subject", "kind", "issuer", "client", "group", "role", "claim", "scope"], help_heading = "Who asks")]
    pub(crate) anonymous: bool,
    /// A group that the token names; may be given several times.
    #[arg(long, help_heading = "Who asks")]
    pub(crate) group: Vec<String>,
    /// A role that the token names; may be given several times.
    #[arg(long, help_heading = "Who asks")]
    pub(crate) role: Vec<String>,
    /// A claim of the token; may be given several times.
    #[arg(long, value_name = "NAME=TEXT", help_heading = "Who asks")]
    pub(crate) claim: Vec<String>,
    /// A scope of the token; may be given several times.
    #[arg(long, help_heading = "Who asks")]
    pub(crate) scope: Vec<String>,
    /// The token's issuer; the configured one, where there is only one.
    #[arg(long, help_heading = "Who asks")]
    pub(crate) issuer: Option<String>,
    /// The OAuth client that acts for the caller.
    #[arg(long, help_heading = "Who asks")]
    pub(crate) client: Option<String>,
    /// When it is decided, in RFC 3339; now.
    #[arg(long, help_heading = "The request")]
    pub(crate) time: Option<String>,
    /// Address of the connection.
    #[arg(long, value_name = "ADDRESS", help_heading = "The request")]
    pub(crate) source_ip: Option<String>,
    /// MCP session id.
    #[arg(long, help_heading = "The request")]
    pub(crate) session: Option<String>,
    /// What the MCP client calls itself.
    #[arg(long, value_name = "NAME", help_heading = "The request")]
    pub(crate) client_name: Option<String>,
    /// Seconds since the token was issued.
    #[arg(long, value_name = "SECONDS", help_heading = "The request")]
    pub(crate) token_age_seconds: Option<i64>,
    /// MCP protocol version.
    #[arg(long, value_name = "VERSION", help_heading = "The request")]
    pub(crate) protocol_version: Option<String>,
    /// What a counter of earlier calls says, e.g. refunds_last_hour=4; may be given several times. Counters
    /// that are not named say 0.
    #[arg(long, value_name = "NAME=COUNT", value_parser = count, help_heading = "The request")]
    pub(crate) calls: Vec<(String, i64)>,
    /// Write one JSON document instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is asked of a server.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// A call of this tool.
    #[arg(long, help_heading = "What is asked for")]
    pub(crate) tool: Option<String>,
    /// This prompt.
    #[arg(long, help_heading = "What is asked for")]
    pub(crate) prompt: Option<String>,
    /// The resource with this URI.
    #[arg(long, value_name = "URI", help_heading = "What is asked for")]
    pub(crate) resource: Option<String>,
    /// Something of the server itself.
    #[arg(long, value_enum, help_heading = "What is asked for")]
    pub(crate) action: Option<ServerAction>,
}

#[derive(Args)]
pub(crate) struct Schema {
    /// A server's name in the configuration, and where its tools are: the URL of its MCP endpoint, or a
    /// file with the answer to tools/list.
    #[arg(required = true, value_name = "SERVER=URL|FILE")]
    pub(crate) sources: Vec<String>,
    /// Send `Authorization: Bearer` with the token in this environment variable.
    #[arg(long, value_name = "VARIABLE", conflicts_with = "token_file")]
    pub(crate) token_env: Option<String>,
    /// Send `Authorization: Bearer` with the token in this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<String>,
    /// Send a header with the value in an environment variable; may be given several times.
    #[arg(long, value_name = "NAME=VARIABLE")]
    pub(crate) header_env: Vec<String>,
    /// Send a header with the value in a file; may be given several times.
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) header_file: Vec<String>,
    /// Write the `MCP::Tool` entities instead: what the servers say of their tools in annotations
    /// (read-only, destructive, idempotent, open-world), for `policy.entities`.
    #[arg(long)]
    pub(crate) entities: bool,
    /// Write one JSON document instead of text: schema, entities and warnings.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Approve {
    /// A file with the answer to the refused call, or `-` for the input.
    #[arg(required_unless_present = "jwks")]
    pub(crate) request: Option<PathBuf>,
    /// The private key of the issuer of approvals: PEM (PKCS #8), curve P-256.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The arguments that are approved: a JSON object, or @FILE with one.
    #[arg(long, value_name = "JSON", required_unless_present = "jwks")]
    pub(crate) arguments: Option<String>,
    /// The issuer of approvals, as in `approvals.issuers` of the configuration.
    #[arg(long, required_unless_present = "jwks")]
    pub(crate) issuer: Option<String>,
    /// Who approves.
    #[arg(long, value_name = "SUBJECT", required_unless_present = "jwks")]
    pub(crate) approver: Option<String>,
    /// A group that the approver is in; may be given several times.
    #[arg(long)]
    pub(crate) group: Vec<String>,
    /// How long the approval is good.
    #[arg(long, default_value_t = 300)]
    pub(crate) seconds: u64,
    /// Write the public half of the key instead, as `jwks` of the configuration.
    #[arg(long, conflicts_with_all = ["request", "arguments", "issuer", "approver", "group"])]
    pub(crate) jwks: bool,
    /// Write one JSON document instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Diff {
    /// The configuration or folder of policies that is in force.
    pub(crate) old: PathBuf,
    /// The one that is to replace it.
    pub(crate) new: PathBuf,
    /// A file of audit records, one JSON document a line; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Vec<PathBuf>,
    /// What is known of callers, YAML or JSON: `alice: {groups: [finance]}`, and likewise roles, claims
    /// and scopes.
    #[arg(long, value_name = "FILE")]
    pub(crate) callers: Option<PathBuf>,
    /// A file with cases, or a folder with such files; may be given several times. What they expect does
    /// not matter here.
    #[arg(long, value_name = "PATH")]
    pub(crate) cases: Vec<PathBuf>,
    /// Which changes make the exit code 1.
    #[arg(long, value_enum, default_value = "any")]
    pub(crate) fail_on: FailOn,
    /// Write one JSON document instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads `NAME=COUNT`.
fn count(text: &str) -> Result<(String, i64), String> {
    let (name, calls) = text.split_once('=').ok_or("write NAME=COUNT")?;
    let calls = calls.parse().map_err(|_| format!("{calls:?} is no whole number"))?;
    Ok((name.to_owned(), calls))
}
