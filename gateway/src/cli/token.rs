//! `tidings token`: keys and tokens for development, where no backend makes them yet, and a look into one.
//!
//! Nothing secret comes from the command line, where every program of the machine can read it: keys are files, tokens come on
//! standard input.

use crate::auth::crypto::{Material, Signer, hash};
use crate::auth::{file, now_s};
use crate::cli::one_line;
use clap::Subcommand;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tidings_router::access::claims::MOST_LEEWAY_S;
use tidings_router::access::jose::Algorithm;
use tidings_router::access::token::{MOST_TOKEN_BYTES, Parts, judge};
use tidings_router::access::{Identity, Policy, Templates};

/// What `tidings token` does.
#[derive(Debug, Subcommand)]
pub enum TokenWord {
    /// Make an API key: print it, and the hash that stands in the policy.
    Key,
    /// Print the hash of an API key that comes on standard input.
    Hash,
    /// Make a token, for development.
    Mint(Box<MintArgs>),
    /// Say what a token that comes on standard input says, and with a policy what it is worth there.
    Inspect(InspectArgs),
}

/// What a token is to say.
#[derive(clap::Args, Debug)]
pub struct MintArgs {
    /// EdDSA, ES256, RS256 or HS256
    #[arg(long, value_name = "NAME", default_value = "EdDSA")]
    algorithm: String,
    /// The private key in PEM (PKCS #8), or the secret for HS256
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// The key's id
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
    /// Who makes it (`iss`)
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Whom it is for (`sub`)
    #[arg(long, value_name = "NAME")]
    subject: String,
    /// Who is to take it (`aud`)
    #[arg(long, value_name = "NAME")]
    audience: Vec<String>,
    /// Its own name (`jti`), by which it can be revoked
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// How long it holds, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    lifetime_s: u64,
    /// Objects it may watch: an ID, `prefix:*` or `*`; `{subject}` stands for the subject
    #[arg(long, value_name = "GRANT")]
    subscribe: Vec<String>,
    /// Objects it may publish
    #[arg(long, value_name = "GRANT")]
    publish: Vec<String>,
    /// It may do what operators do
    #[arg(long)]
    admin: bool,
    /// Objects to subscribe its bearer to at connect
    #[arg(long, value_name = "ID")]
    object: Vec<String>,
}

/// What to hold a token against.
#[derive(clap::Args, Debug)]
pub struct InspectArgs {
    /// The policy of the server (auth.policy_file)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Whether its bearer may watch this object
    #[arg(long, value_name = "ID", requires = "policy")]
    object: Vec<String>,
}

/// Does it.
///
/// # Errors
/// Says what is wrong; nothing was written.
pub fn run(word: &TokenWord) -> Result<ExitCode, String> {
    match word {
        TokenWord::Key => {
            let key = new_key()?;
            println!("{key}\nsha256 = [\"{}\"]", hex(&hash(key.as_bytes())));
        }
        TokenWord::Hash => println!("{}", hex(&hash(standard_input(1024)?.as_bytes()))),
        TokenWord::Mint(args) => println!("{}", mint(args)?),
        TokenWord::Inspect(args) => return inspect(args),
    }
    Ok(ExitCode::SUCCESS)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 256 random bits. What it begins with tells people, and scanners of repositories, what it is.
fn new_key() -> Result<String, String> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| format!("no randomness: {error}"))?;
    Ok(format!("tidings_key_{}", hex(&random)))
}

fn standard_input(most: usize) -> Result<String, String> {
    let mut text = String::new();
    let mut input = std::io::stdin().lock().take(most as u64 + 2);
    input.read_to_string(&mut text).map_err(|error| error.to_string())?;
    let text = text.trim_end_matches(['\r', '\n']);
    match text.len() {
        0 => Err("nothing came on standard input".to_owned()),
        length if length > most => Err(format!("more than {most} bytes came on standard input")),
        _ => Ok(text.to_owned()),
    }
}

fn mint(args: &MintArgs) -> Result<String, String> {
    let algorithm = Algorithm::named(&args.algorithm)
        .ok_or_else(|| format!("`{}` is none of EdDSA, ES256, RS256 and HS256", args.algorithm))?;
    Templates::read(&args.subscribe, &args.publish, args.admin)
        .map_err(|(text, error)| format!("`{text}`: {error}"))?;
    let bytes = std::fs::read(&args.key_file).map_err(|error| format!("{}: {error}", args.key_file.display()))?;
    let signer = Signer::read(algorithm, &bytes).map_err(|why| format!("{}: {why}", args.key_file.display()))?;
    let issued_s = now_s();
    let mut claims = json!({
        "sub": args.subject,
        "iat": issued_s,
        "exp": issued_s.saturating_add(args.lifetime_s),
        "tidings": {
            "subscribe": args.subscribe, "publish": args.publish, "admin": args.admin, "objects": args.object,
        },
    });
    let mut say = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims[name] = value;
        }
    };
    say("iss", args.issuer.as_ref().map(|text| json!(text)));
    say("jti", args.id.as_ref().map(|text| json!(text)));
    say("aud", (!args.audience.is_empty()).then(|| json!(args.audience)));
    let token = signer.mint(args.kid.as_deref(), &claims)?;
    // What no server would take is not handed out.
    Parts::read(&token).map_err(|fault| format!("such a token would not be accepted: {fault}"))?;
    Ok(token)
}

fn inspect(args: &InspectArgs) -> Result<ExitCode, String> {
    let token = standard_input(MOST_TOKEN_BYTES)?;
    let parts = Parts::read(&token).map_err(|fault| format!("the token is not accepted: {fault}"))?;
    let (header, claims) = (&parts.header, &parts.claims);
    println!("algorithm {}", header.algorithm.name());
    println!(
        "kid       {}",
        header.kid.as_deref().map_or("none".to_owned(), one_line)
    );
    println!("issuer    {}", one_line(&claims.issuer));
    println!("subject   {}", one_line(&claims.subject));
    println!(
        "audience  {}",
        claims
            .audience
            .iter()
            .map(|one| one_line(one))
            .collect::<Vec<_>>()
            .join(", ")
    );
    println!(
        "id        {}",
        claims
            .id
            .as_deref()
            .map_or("none: it cannot be revoked alone".to_owned(), one_line)
    );
    let now = now_s();
    let left = if claims.expires_s > now {
        format!("in {} s", claims.expires_s - now)
    } else {
        format!("{} s ago", now - claims.expires_s)
    };
    println!("issued    {}\nexpires   {} ({left})", claims.issued_s, claims.expires_s);
    let list = |name: &str, templates: &[tidings_router::access::Template]| {
        let texts: Vec<_> = templates.iter().map(|template| one_line(template.text())).collect();
        println!("{name} {}", texts.join(", "));
    };
    list("subscribe", &claims.own.subscribe);
    list("publish  ", &claims.own.publish);
    println!("admin     {}", claims.own.admin);
    let Some(path) = &args.policy else {
        println!("\nNot verified: give --policy to see what it is worth.");
        return Ok(ExitCode::SUCCESS);
    };
    worth(args, &token, path)
}

fn worth(args: &InspectArgs, token: &str, path: &Path) -> Result<ExitCode, String> {
    let policy: Policy<Material> = file::read(path, MOST_LEEWAY_S, 31_536_000).map_err(|error| error.to_string())?;
    let identity: Identity = match judge(&policy, token, now_s(), Material::verify) {
        Ok(identity) => identity,
        Err(fault) => {
            println!("\nNot accepted: {fault}.");
            return Ok(ExitCode::FAILURE);
        }
    };
    println!("\nAccepted by {}.", path.display());
    for object in &args.object {
        use tidings_router::access::Action;
        let may = |action| if identity.allows(action, object) { "yes" } else { "no" };
        let object_line = one_line(object);
        println!(
            "{object_line}: subscribe {}, publish {}",
            may(Action::Subscribe),
            may(Action::Publish)
        );
    }
    println!("admin: {}", if identity.is_admin() { "yes" } else { "no" });
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_never_the_same() {
        let (one, other) = (new_key().expect("a key"), new_key().expect("a key"));
        assert_ne!(one, other);
        assert_eq!(one.len(), "tidings_key_".len() + 64);
        assert!(!one.contains('.'), "with a dot it would be taken for a token");
    }

    #[test]
    fn a_hash_is_written_as_the_policy_reads_it() {
        assert_eq!(
            hex(&hash(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
