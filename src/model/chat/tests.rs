use super::*;
use serde_json::json;

const LLAMA3: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = \
    '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}\
    {% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

const CHATML: &str = "{%- if tools %}\n    {{- 'tools' }}\n{%- else %}\n    {%- if messages[0]['role'] == 'system' %}\n\
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n    {%- else %}\n\
    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}\n    {%- endif %}\n{%- endif %}\n\
    {%- for message in messages %}\n    {%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) \
    or (message.role == \"assistant\" and not message.tool_calls) %}\n\
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n    {%- endif %}\n{%- endfor %}\n\
    {%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n";

const MISTRAL: &str = "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != \
    (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant!') }}{% endif %}\
    {% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}\
    {% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}\
    {{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}";

const GEMMA: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}\
    {% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}\
    {% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim \
    + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}";

fn talk() -> Vec<Message> {
    vec![
        Message::user(" Hi "),
        Message::new("assistant", "Yes?"),
        Message::user("Go on"),
    ]
}

fn render(text: &str, messages: &[Message], generate: bool) -> String {
    ChatTemplate::new(text, Some("<s>".into()), Some("</s>".into()))
        .render(messages, generate)
        .unwrap()
}

fn fails(text: &str) -> String {
    ChatTemplate::new(text, None, None)
        .render(&talk(), true)
        .unwrap_err()
        .to_string()
}

#[test]
fn llama3() {
    assert_eq!(
        render(LLAMA3, &[Message::user(" Hi ")], true),
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    assert!(!render(LLAMA3, &talk(), false).ends_with("\n\n"));
}

#[test]
fn chatml() {
    assert_eq!(
        render(CHATML, &[Message::user("Hi")], true),
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    let system = [Message::new("system", "Short."), Message::user("Hi")];
    assert_eq!(
        render(CHATML, &system, false),
        "<|im_start|>system\nShort.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    );
}

#[test]
fn mistral_and_its_complaints() {
    assert_eq!(
        render(MISTRAL, &talk(), true),
        "<s>[INST]  Hi  [/INST]Yes?</s>[INST] Go on [/INST]"
    );
    let template = ChatTemplate::new(MISTRAL, None, None);
    let error = template
        .render(&[Message::new("assistant", "x")], true)
        .unwrap_err()
        .to_string();
    assert!(error.contains("roles must alternate"), "{error}");
}

#[test]
fn gemma() {
    assert_eq!(
        render(GEMMA, &talk(), true),
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n\
         <start_of_turn>user\nGo on<end_of_turn>\n<start_of_turn>model\n"
    );
}

#[test]
fn lines_of_tags_leave_no_blanks() {
    let text = "{% for m in messages %}\n    {% if m.role == 'user' %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\n";
    assert_eq!(
        render(text, &[Message::user("a"), Message::user("b")], false),
        "a\nb\n"
    );
}

#[test]
fn methods_namespaces_loop_controls_and_slices_work() {
    let text = "{%- set ns = namespace(n=0) -%}{%- for m in messages[1:] -%}{%- if m.role.startswith('ass') -%}\
        {%- continue -%}{%- endif -%}{%- set ns.n = ns.n + 1 -%}{{ m.content.split(' ')[-1].upper() }}{{ m.get('x', '-') }}\
        {%- break -%}{%- endfor -%}{{ ns.n }}{{ messages[-1].items() | length }}";
    assert_eq!(render(text, &talk(), false), "ON-12");
}

#[test]
fn generation_marks_are_skipped() {
    let text = "{%- for m in messages -%}{%- generation -%}{{ m.content }}{%- endgeneration -%}{% endfor %}{% generation %}!{% endgeneration %}{% odd";
    assert_eq!(
        without_generation_tags(text),
        "{%- for m in messages -%}{%- if true -%}{{ m.content }}{%- endif -%}{% endfor %}{% if true %}!{% endif %}{% odd"
    );
}

#[test]
fn dates_are_written_as_asked() {
    let at = OffsetDateTime::from_unix_timestamp(86_400 * 365).unwrap();
    assert_eq!(strftime(at, "%d %b %Y").unwrap(), "01 Jan 1971");
    assert!(strftime(at, "%Q").is_err());
    assert!(
        render(
            "{{ strftime_now('%Y') if strftime_now is defined }}",
            &[],
            false
        )
        .len()
            == 4
    );
}

#[test]
fn templates_that_never_end_are_stopped() {
    assert!(
        fails("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
            .contains("too long")
    );
    assert!(fails("{% for a in range(99999) %}{{ 'x' * 10000 }}{% endfor %}").contains("too much"));
    assert!(fails("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").contains("chat template"));
    assert!(fails("{{ 'x' * 999999999999 }}").contains("chat template"));
    assert!(fails("{{ 'x' | indent(999999999) }}").contains("chat template"));
    assert!(fails("{% include '/etc/passwd' %}").contains("chat template"));
}

#[test]
fn broken_templates_name_the_line_and_stay_printable() {
    let error = fails("a\nb {% if %}");
    assert!(error.contains("line 2"), "{error}");
    assert!(!fails("{{ raise_exception('\u{1b}[2J') }}").contains('\u{1b}'));
    assert!(fails(&"x".repeat(MAX_TEMPLATE + 1)).contains("longer than"));
}

#[test]
fn the_configuration_is_read_in_all_its_forms() {
    let of = |config: serde_json::Value, jinja| {
        ChatTemplate::from_config(&config, jinja).map(|t| t.render(&[], false).unwrap())
    };
    assert_eq!(of(json!({}), None), None);
    assert_eq!(
        of(
            json!({"chat_template": "a{{ bos_token }}", "bos_token": "<s>"}),
            None
        ),
        Some("a<s>".into())
    );
    assert_eq!(
        of(json!({"chat_template": "a"}), Some("b")),
        Some("b".into())
    );
    assert_eq!(
        of(
            json!({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "{{ eos_token }}"}],
                  "eos_token": {"content": "</s>"}}),
            None
        ),
        Some("</s>".into())
    );
    assert_eq!(
        of(
            json!({"chat_template": [{"name": "x", "template": "x"}]}),
            None
        ),
        Some("x".into())
    );
    assert_eq!(of(json!({"chat_template": 7}), None), None);
}
