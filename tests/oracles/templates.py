"""Conversations as transformers renders them, with templates that use what the hub's do; null where the template raises."""

import datetime

from generator import write
from tokens import CONVERSATIONS, turns
from transformers.utils import chat_template_utils

TEMPLATES = {
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "llama 3": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- The system's turn is taken out, so that it comes where it should. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif message.role == "tool" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- elif message == user_messages[-1] %}
            {{- "[INST] " + message["content"] + " [/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
""",
    "odds and ends": """{% macro turn(role, text) %}[{{ role | upper }}: {{ text }}]{% endmacro %}
{% for message in messages %}
{%- set text = message.get('content', '').replace('e', 'E') -%}
{%- if loop.index > 4 -%}{% break %}{%- endif -%}
{{ turn(message.role, text) }}{{ loop.revindex }} {{ text.split(' ') | length }} {{ text.startswith('T') }} {{ none }}
{{ text[:3] }}|{{ text[-3:] }}|{{ text[::-1] }}|{{ text.strip('.').rstrip('s').title() }}|{{ 'user' in message.role }}
{{ [text, 1.5, 7 // 2, 2 ** 3, true] | tojson }} {{ message | tojson(indent=4) }} {{ message.items() | list | length }}
{% if text is string and message is mapping and not (text is number) %}{{ ('a' ~ 1) | default('x') }}{% endif %}
    {%+ if loop.first %} kept{% else %} also{% endif +%}

{{ missing }}{{ missing | default('nothing') }}{{ message.missing is defined }}
{% endfor %}
{{ messages | map(attribute='role') | join(',') }} {{ range(3) | list }} {{ messages[0].role == 'user' and 'u' or 's' }}
""",
}
CONVERSATIONS = CONVERSATIONS | {"white space around": turns("  hi \n", "\tho  ", system=" \n s "), "two of the user": turns("a", "b", "c")[::2]}


class Now(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


ENDINGS = {"turn": {}, "generation_prompt": {"add_generation_prompt": True}, "continued": {"continue_final_message": True}}


def render(template, messages, **ending):
    try:
        return chat_template_utils.render_jinja_template([messages], chat_template=template, bos_token="<s>", eos_token="</s>", **ending)[0][0]
    except Exception as error:
        assert type(error).__name__ == "TemplateError", error


if __name__ == "__main__":
    chat_template_utils.datetime = Now
    write(__file__, ["transformers", "jinja2"], conversations=[{"name": name, "messages": messages} for name, messages in CONVERSATIONS.items()],
          templates=[{"name": name, "template": template,
                      **{ending: [render(template, messages, **how) for messages in CONVERSATIONS.values()] for ending, how in ENDINGS.items()
                         # Where a template says a turn several times, transformers leaves in its mark of the place to
                         # go on from.
                         if (name, ending) != ("odds and ends", "continued")}}
                     for name, template in TEMPLATES.items()])
