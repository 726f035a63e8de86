//! Messages of RFC 4252, decoded by the monitor.

use super::error::ProtocolError;
use super::message;
use super::wire::{Reader, Writer};
use crate::limits::INFO_RESPONSES_MAX;

/// SSH_MSG_USERAUTH_REQUEST (RFC 4252 section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthRequest<'a> {
    /// Login name as the client spells it.
    pub user: &'a [u8],
    /// Service to start; only `ssh-connection` exists here.
    pub service: &'a [u8],
    /// The method and its fields.
    pub method: Method<'a>,
}

/// An authentication method with its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method<'a> {
    /// `none`.
    None,
    /// `publickey` and `publickey-hostbound-v00@openssh.com`.
    PublicKey(PublicKeyRequest<'a>),
    /// `password`.
    Password(PasswordRequest<'a>),
    /// `keyboard-interactive`: asks to be asked. Language and submethods are hints that change nothing.
    KeyboardInteractive,
    /// A method that is not served here, by name.
    Other(&'a [u8]),
}

/// RFC 4252 section 7; OpenSSH PROTOCOL 1.6 for the host-bound form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeyRequest<'a> {
    /// Signature algorithm.
    pub algorithm: &'a [u8],
    /// Public key blob.
    pub key: &'a [u8],
    /// Host key blob that the client saw, in the host-bound form.
    pub host_key: Option<&'a [u8]>,
    /// The signature blob; `None`: a query whether the key would do.
    pub signature: Option<&'a [u8]>,
}

/// RFC 4252 section 8.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PasswordRequest<'a> {
    /// The password; with `new`, the old one.
    pub password: &'a [u8],
    /// What is to replace it.
    pub new: Option<&'a [u8]>,
}

impl std::fmt::Debug for PasswordRequest<'_> {
    // It may come near a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordRequest")
    }
}

const HOSTBOUND: &[u8] = b"publickey-hostbound-v00@openssh.com";

impl<'a> AuthRequest<'a> {
    /// Decodes the payload behind the message number.
    pub fn decode(payload: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(payload);
        let user = reader.string("user name")?;
        let service = reader.string("service name")?;
        let name = reader.string("method name")?;
        let method = match name {
            b"none" => Method::None,
            b"publickey" | HOSTBOUND => {
                let signed = reader.boolean("has signature")?;
                let algorithm = reader.string("public key algorithm")?;
                let key = reader.string("public key blob")?;
                let host_key = match name {
                    HOSTBOUND => Some(reader.string("server host key")?),
                    _ => None,
                };
                let signature = if signed {
                    Some(reader.string("signature")?)
                } else {
                    None
                };
                Method::PublicKey(PublicKeyRequest {
                    algorithm,
                    key,
                    host_key,
                    signature,
                })
            }
            b"password" => {
                let changes = reader.boolean("changes the password")?;
                let password = reader.string("password")?;
                let new = if changes {
                    Some(reader.string("new password")?)
                } else {
                    None
                };
                Method::Password(PasswordRequest { password, new })
            }
            b"keyboard-interactive" => {
                reader.string("language")?;
                reader.string("submethods")?;
                Method::KeyboardInteractive
            }
            other => {
                // Not ours to judge: refused by name, whatever follows.
                return Ok(Self {
                    user,
                    service,
                    method: Method::Other(other),
                });
            }
        };
        reader.finish(message::USERAUTH_REQUEST)?;
        Ok(Self {
            user,
            service,
            method,
        })
    }

    /// The request's encoding with nothing in the place of passwords, to be kept until its answer.
    pub fn without_secrets(&self) -> Vec<u8> {
        let mut request = Vec::new();
        request.put_string(self.user);
        request.put_string(self.service);
        let name: &[u8] = match &self.method {
            Method::None => b"none",
            Method::Other(name) => name,
            Method::PublicKey(key) if key.host_key.is_some() => HOSTBOUND,
            Method::PublicKey(_) => b"publickey",
            Method::Password(_) => b"password",
            Method::KeyboardInteractive => b"keyboard-interactive",
        };
        request.put_string(name);
        match &self.method {
            Method::None | Method::Other(_) => {}
            Method::PublicKey(key) => {
                request.put_boolean(key.signature.is_some());
                request.put_string(key.algorithm);
                request.put_string(key.key);
                for part in [key.host_key, key.signature].into_iter().flatten() {
                    request.put_string(part);
                }
            }
            Method::Password(_) => {
                request.put_boolean(false);
                request.put_string(b"");
            }
            Method::KeyboardInteractive => {
                request.put_string(b"");
                request.put_string(b"");
            }
        }
        request
    }

    /// The bytes that the client signs (RFC 4252 section 7), or `None` where there is no signature.
    pub fn signed_data(&self, session_id: &[u8]) -> Option<Vec<u8>> {
        let Method::PublicKey(request) = &self.method else {
            return None;
        };
        request.signature?;
        let mut data = Vec::new();
        data.put_string(session_id);
        data.put_u8(message::USERAUTH_REQUEST);
        data.put_string(self.user);
        data.put_string(self.service);
        data.put_string(if request.host_key.is_some() {
            HOSTBOUND
        } else {
            b"publickey"
        });
        data.put_boolean(true);
        data.put_string(request.algorithm);
        data.put_string(request.key);
        if let Some(host_key) = request.host_key {
            data.put_string(host_key);
        }
        Some(data)
    }
}

/// The answers in SSH_MSG_USERAUTH_INFO_RESPONSE (RFC 4256 section 3.4), payload behind the number.
pub fn decode_info_response(payload: &[u8]) -> Result<Vec<&[u8]>, ProtocolError> {
    let mut reader = Reader::new(payload);
    let count = reader.u32("number of responses")?;
    // Nobody asks for more at once than this.
    if count > INFO_RESPONSES_MAX {
        return Err(ProtocolError::BadValue {
            field: "number of responses",
        });
    }
    let mut responses = Vec::new();
    for _ in 0..count {
        responses.push(reader.string("response")?);
    }
    reader.finish(message::USERAUTH_INFO_RESPONSE)?;
    Ok(responses)
}
